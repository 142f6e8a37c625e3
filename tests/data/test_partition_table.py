"""The table of a partition, by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from fedbrats.data.partition import Site
from fedbrats.data.partition_table import partition_table


def test_partition_table_by_hand() -> None:
    def stats(wt: float, et: float, mean: float, std: float) -> dict:
        return {
            "volumes_ml": {"WT": wt, "TC": wt / 2, "ET": et},
            "intensity": {m: {"mean": mean, "std": std} for m in ("t1", "t1ce", "t2", "flair")},
        }

    sites = [Site("A", False, ("a",), ("b",), ()), Site("B", True, (), (), ("c",))]
    table = partition_table(
        sites, {"a": stats(10, 0, 100, 3), "b": stats(30, 5, 108, 3), "c": stats(7, 1, 5, 2)}
    )
    first, second = table.to_dict("records")
    assert (first["site"], first["cases"], first["train"], first["val"], first["test"]) == ("A", 2, 1, 1, 0)
    assert (first["holdout"], second["holdout"]) == (False, True)
    assert (first["wt_ml_mean"], first["tc_ml_mean"]) == (20, 10)
    assert first["wt_ml_sd"] == pytest.approx(200**0.5)  # 10 and 30: (10^2 + 10^2) / (2 - 1)
    assert second["wt_ml_mean"] == 7
    assert pd.isna(second["wt_ml_sd"])
    assert (first["et_free"], second["et_free"]) == (1, 0)
    assert first["t1_mean"] == 104
    assert first["flair_sd"] == pytest.approx(5)  # sqrt(3^2 + 4^2): within and between the two cases
    assert second["t1_sd"] == 2
    assert not table.drop(columns=["wt_ml_sd", "tc_ml_sd", "et_ml_sd"]).isna().any(axis=None)
    with pytest.raises(ValueError, match="no statistics of c"):
        partition_table(sites, {"a": stats(1, 1, 1, 1), "b": stats(1, 1, 1, 1)})

"""Trained at one institution, tested at another."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from fedbrats.report.results import Results
from fedbrats.report.sections.cross import section
from fedbrats.report.sections.cross_tables import cross_matrix
from fedbrats.runs.run_folder import read_run
from tests.report.fake_run import write_run


def case(
    arm: str, site: str, name: str, dice: float, status: str = "ok", region: str = "WT"
) -> dict[str, object]:
    return {"arm": arm, "site": site, "case": name, "region": region, "dice": dice, "status": status}


def test_the_matrix_by_hand() -> None:
    cases = pd.DataFrame(
        [
            case("local:A", "A", "1", 0.9),
            case("local:A", "B", "2", 0.4),
            case("local:A", "B", "3", 0.6),
            case("local:B", "A", "1", 0.2),
            case("local:B", "B", "2", 0.8),
            case("local:B", "B", "3", math.nan, "failed: no result", region=""),
            case("federated", "A", "1", 1.0),
            case("local:A", "A", "1", 0.1, region="ET"),
        ]
    )
    wide = cross_matrix(cases, "WT", ["A", "B", "C"])
    assert list(wide.index) == ["A", "B", "Federated"]
    assert list(wide.columns) == ["A", "B"]
    assert wide.loc["A"].tolist() == pytest.approx([0.9, 0.5])
    assert wide.loc["B"].tolist() == pytest.approx([0.2, 0.4])  # a failed case counts, and with the worst
    assert wide.loc["Federated", "A"] == 1.0
    assert math.isnan(wide.loc["Federated", "B"])


def test_a_run_has_it_where_there_are_local_models(tmp_path: Path) -> None:
    small = {"sites": ["A", "B"], "sizes": [8, 8], "unseen": ["Z"], "rounds": 1}
    found = section(Results(read_run(write_run(tmp_path / "local", **small))))
    assert found is not None
    (part, *_) = found.context["drawn"]
    assert (part["region"], part["sites"]) == ("WT", ["A", "B", "Z"])
    assert [name for name, _ in part["rows"]] == ["A", "B", "Federated", "Pooled"]
    assert part["figure"].startswith("data:image/svg")
    assert (
        section(Results(read_run(write_run(tmp_path / "none", arms=("federated", "pooled"), **small))))
        is None
    )

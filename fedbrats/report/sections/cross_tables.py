"""What each local model is worth at every institution, as numbers."""

from __future__ import annotations

import pandas as pd

from fedbrats.config.schema import LOCAL
from fedbrats.report.arms import arm_title
from fedbrats.tasks import segmentation as task

BESIDE = ("federated", "pooled")  # rows below those of the local models, to compare them with


def cross_matrix(cases: pd.DataFrame, region: str, sites: list[str]) -> pd.DataFrame:
    """Mean main score of every local model (rows) on the test cases of every institution (columns).

    Args:
        cases: rows of `cases.csv`; a failed case counts with its worst score.
        region: whose scores.
        sites: the columns in their order, and the rows of those that have a local model; `BESIDE` follow.
    """
    part = cases[(cases["region"] == region) | (cases["region"] == "")]
    part = part.assign(score=part[task.MAIN].where(part["status"] == "ok", 0.0))
    wide = part.pivot_table(index="arm", columns="site", values="score", aggfunc="mean")
    rows = [f"{LOCAL}:{site}" for site in sites if f"{LOCAL}:{site}" in wide.index]
    rows += [arm for arm in BESIDE if arm in wide.index]
    wide = wide.reindex(index=rows, columns=[site for site in sites if site in wide.columns])
    return wide.rename(index=lambda arm: arm.removeprefix(f"{LOCAL}:") if ":" in arm else arm_title(arm))

"""How validation rose in a run: over rounds, over steps in a row, over all steps, over what travelled."""

from __future__ import annotations

import pandas as pd

from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION

AXES = {
    "round": "Rounds",
    "in_a_row": "Optimiser steps in a row",
    "together": "All optimiser steps",
    "mb": "MB exchanged",
    "hours": "Simulated hours",
}
VALUES = tuple(task.COLUMNS.values())


def curve_of(rounds: pd.DataFrame) -> pd.DataFrame:
    """Validation of every arm that has one model for all sites.

    Args:
        rounds: as `runs.rounds.read_rounds` gives them.

    Returns:
        One row per arm and validated round: arm, round, in_a_row (steps of the longest site, added up), together (steps
        of all sites), mb (megabytes that had travelled), hours (of the simulated clock), then the main scores by
        region, of a run that classifies also that of the label; NaN where nothing is told.
    """
    values, parts = [*VALUES, *(c for c in CLASSIFICATION.columns.values() if c in rounds)], []
    for arm, mine in rounds[~rounds["arm"].str.contains(":")].groupby("arm"):
        train = mine[(mine["phase"] == "train") & (mine["status"] == "ok")].groupby("round")["steps"]
        sent = (
            mine[mine["phase"].isin(["train", "val", "unmask"])]
            .groupby("round")[["bytes_down", "bytes_up"]]
            .sum()
        )
        whole = mine[mine["phase"] == "round"].set_index("round")[values]
        found = whole.assign(
            arm=arm,
            in_a_row=train.max().reindex(whole.index).cumsum(),
            together=train.sum(min_count=1).reindex(whole.index).cumsum(),
            hours=mine[mine["phase"] == "round"].set_index("round")["hours"],
            mb=sent.sum(axis=1).reindex(whole.index).cumsum() / 1e6,
        )
        parts.append(found[found[values].notna().any(axis=1)].rename_axis("round").reset_index())
    columns = ["arm", *AXES, *values]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

"""`cases.csv` and the other tables of the test at the end: scores by step, uncertainty, reliability."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbrats.metrics.aggregates import NUMBERS
from fedbrats.metrics.table import VOLUMES
from fedbrats.runs.table import Table
from fedbrats.tasks import segmentation as task

GROUPS = "groups.json"  # sites that have shared a model, by the name of their group
PLAN = "plan.json"  # of a planned network: what it was made of, and why
SURVEY = "survey.json"  # what sites have told of their patients before training, by site
WITHHELD = "withheld.json"  # what sites keep at home by their own policy, in their words, by site
KEYS = ("arm", "site", "case", "region")
STEP_NUMBERS = ("order", *task.SHOWN, "changed_voxels")
BIN_NUMBERS = ("bin_low", "bin_high", "voxels", "sum_probability", "sum_truth")  # as a site tells them

# Predictions that somebody made elsewhere have no arm and perhaps no site.
STEPS = Table(
    "steps.csv",
    (*KEYS, "order", "step", *STEP_NUMBERS[1:]),
    text=(*KEYS, "step"),
    needed=("case", "region", "step", "order"),
    line_end="\n",
)
UNCERTAINTY = Table(
    "uncertainty.csv",
    (*KEYS, "uncertainty"),
    text=KEYS,
    needed=("case", "region", "uncertainty"),
    line_end="\n",
)
BINS = ("bin_low", "bin_high", "voxels", "mean_probability", "observed")
RELIABILITY = Table(
    "reliability.csv",
    ("arm", "site", "region", *BINS),
    text=("arm", "site", "region"),
    needed=("region", *BINS),
    line_end="\n",
)
# Of every site, where at least one keeps the results of single cases at home; `step` is empty but for the steps of
# post-processing, an empty number is not told.
AGGREGATES = Table(
    "aggregates.csv",
    ("arm", "site", "region", "metric", "order", "step", *NUMBERS),
    text=("arm", "site", "region", "metric", "step"),
    needed=("arm", "site", "region", "metric", "cases", "mean"),
    line_end="\n",
)
TABLES = {"steps": STEPS, "uncertainty": UNCERTAINTY, "reliability": RELIABILITY}


def cases_table(metrics: Iterable[str], name: str = "cases.csv", line_end: str = "\r\n") -> Table:
    """The table of the scores by these metrics, one row per case and region."""
    text = (*KEYS, "status")
    return Table(name, (*KEYS, *metrics, *VOLUMES, "status"), text, needed=text, line_end=line_end)


def scores_table(metrics: Iterable[str]) -> Table:
    """The same for a folder of predictions."""
    return cases_table(metrics, "scores.csv", "\n")


def reliability_rows(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `site.tables.bin_rows` with means in the place of sums; bins without a voxel are left out."""
    return [
        {
            **row,
            "mean_probability": row["sum_probability"] / row["voxels"],
            "observed": row["sum_truth"] / row["voxels"],
        }
        for row in bins
        if row["voxels"] > 0
    ]


def write_table(folder: Path, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `table` with its own columns of `rows`, unless there is nothing to write; nobody else may read it."""
    if rows:
        table.write(folder, [{column: row[column] for column in table.columns} for row in rows], private=True)

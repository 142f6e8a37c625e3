"""`cases.csv` and the other tables of the test at the end: scores by step, uncertainty, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.files import write_csv
from fedbrats.metrics.score import CASE_COLUMNS

TABLE_COLUMNS = {
    "steps": ("arm", "site", "case", "region", "order", "step", "dice", "hd95", "changed_voxels"),
    "uncertainty": ("arm", "site", "case", "region", "uncertainty"),
    "reliability": (
        *("arm", "site", "region", "bin_low", "bin_high", "voxels"),
        *("mean_probability", "observed"),
    ),
}


def write_cases(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write `cases.csv` atomically."""
    write_csv(file, CASE_COLUMNS, rows)


def reliability_rows(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `site_tables.bin_rows` with means in the place of sums; bins without a voxel are left out."""
    return [
        {
            **row,
            "mean_probability": row["sum_probability"] / row["voxels"],
            "observed": row["sum_truth"] / row["voxels"],
        }
        for row in bins
        if row["voxels"] > 0
    ]


def write_table(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write `<name>.csv` with its own columns, unless there is nothing to write."""
    if rows:
        columns = list(TABLE_COLUMNS[name])
        pd.DataFrame(rows, columns=columns).to_csv(folder / f"{name}.csv", index=False)

"""What an evaluation prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.summary import ALL_SITES
from fedbrats.metrics.table import Facts
from fedbrats.tasks import segmentation as task


def json_line(row: dict[str, Any]) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, allow_nan=False, ensure_ascii=False)


def summary_table(cases: pd.DataFrame, summary: pd.DataFrame, metrics: Mapping[str, Facts]) -> Table:
    """Return the pooled rows of `summary` as a table for people; its title names the convention.

    Where the cases are too few for an interval, their scores stand in its place.
    """
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1),
        title=f"{task.CONVENTION_TITLE}: {summary['convention'].iloc[0]}; lesion-wise: brats2023",
    )
    several = summary["arm"].nunique() > 1
    for column in (
        *(["arm"] if several else []),
        "region",
        "metric",
        "n",
        "failed",
        "mean",
        "sd",
        "95 % CI" if (summary["n"] >= MIN_CASES).any() else f"scores (no CI below {MIN_CASES})",
        "median",
        "quartiles",
        "worst site",
    ):
        table.add_column(column, no_wrap=True)
    for row in summary[summary["site"] == ALL_SITES].to_dict("records"):
        digits = metrics[row["metric"]].decimals + 1
        f = {k: "-" if np.isnan(v) else f"{v:.{digits}f}" for k, v in row.items() if isinstance(v, float)}
        own = (cases["region"] == row["region"]) & (cases["arm"] == row["arm"])
        scores = sorted(cases.loc[own, row["metric"]])
        few = row["n"] < MIN_CASES
        between = " ".join(f"{v:.{digits}f}" for v in scores) if few else f"{f['ci_low']} to {f['ci_high']}"
        table.add_row(
            *([row["arm"]] if several else []),
            *(row["region"], row["metric"], str(row["n"]), str(row["failed"]), f["mean"], f["std"]),
            *(between, f["median"], f"{f['q25']} to {f['q75']}"),
            f"{row['worst_site']} {f['worst_mean']}",
        )
    return table

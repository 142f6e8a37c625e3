"""Whether the uncertainty can be believed, as numbers: from `uncertainty.csv`, `reliability.csv` and the scores.

The files are those of a run folder (with `cases.csv`) or of a folder of predictions (with `scores.csv`); the columns
arm and site may be absent.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.metrics.uncertainty import expected_calibration_error, rejection_ratio, retained
from fedbrats.report.arms import arm_rank, report_arms
from fedbrats.report.cells import number
from fedbrats.runs.case_tables import BINS, KEYS, RELIABILITY, UNCERTAINTY, cases_table
from fedbrats.tasks import segmentation as task

LISTED = 10  # cases


def read_doubts(folder: Path, scores: str) -> pd.DataFrame:
    """Uncertainty and main score of each case and region of one arm.

    Args:
        folder: of a run or of predictions.
        scores: name of the file with the scores; without that file, or without a row in it, the score is NaN.

    Returns:
        arm, site, case, region, uncertainty, the main score; the arm is the federated one or, without it, the first in
        the order of the report. No rows without `uncertainty.csv`.

    Raises:
        RunFolderError: a file cannot be read.
    """
    rows = UNCERTAINTY.read(folder)
    scored = replace(cases_table((task.MAIN,), scores), needed=("case", "region")).read(folder)
    scored = scored[[*KEYS, task.MAIN]].drop_duplicates(list(KEYS))
    return _one_arm(rows.merge(scored, on=list(KEYS), how="left")[[*KEYS, "uncertainty", task.MAIN]])


def read_bins(folder: Path) -> dict[str, pd.DataFrame]:
    """For each region the reliability of one arm, added up over its institutions.

    Returns:
        Region to rows with the columns of `BINS`, by rising probability, only bins with voxels.

    Raises:
        RunFolderError: `reliability.csv` cannot be read.
    """
    rows = _one_arm(RELIABILITY.read(folder))
    for name in ("mean_probability", "observed"):
        rows[name] = rows[name] * rows["voxels"]
    sums = rows.groupby(["region", "bin_low", "bin_high"], as_index=False)[list(BINS[2:])].sum()
    sums = sums[sums["voxels"] > 0]
    for name in ("mean_probability", "observed"):
        sums[name] = sums[name] / sums["voxels"]
    return {r: sums[sums["region"] == r].reset_index(drop=True)[list(BINS)] for r in _present(sums)}


def curves(doubts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Region to the result of `uncertainty.retained`, for regions with a scored case."""
    scored = doubts[doubts[task.MAIN].notna()]
    parts = {region: scored[scored["region"] == region] for region in _present(scored)}
    return {
        r: retained(part["uncertainty"].to_numpy(), part[task.MAIN].to_numpy()) for r, part in parts.items()
    }


def calibration_error(bins: pd.DataFrame) -> float:
    """Expected calibration error of one region of `read_bins`."""
    voxels = bins["voxels"]
    return expected_calibration_error(
        np.stack([voxels, bins["mean_probability"] * voxels, bins["observed"] * voxels], axis=1)
    )


def number_rows(doubts: pd.DataFrame, bins: dict[str, pd.DataFrame]) -> list[dict[str, str]]:
    """Printable rows, one per region: n, mean uncertainty, mean of one minus the score, calibration error, gain."""
    rows, lines = [], curves(doubts)
    for region in task.in_order({*doubts["region"], *bins}):
        part = doubts[doubts["region"] == region]
        rows.append(
            {
                "region": region,
                "n": str(len(part)),
                "uncertainty": number(part["uncertainty"].mean(), 3),
                "missed": number(1 - part[task.MAIN].mean(), 3),
                "ece": number(calibration_error(bins[region]) if region in bins else None, 4),
                "ratio": number(rejection_ratio(lines[region]) if region in lines else None, 2),
            }
        )
    return rows


def most_uncertain(doubts: pd.DataFrame, listed: int = LISTED) -> list[dict[str, Any]]:
    """The cases for a human to look at first, by their most uncertain region, as predictions rank them.

    Returns:
        At most `listed` rows: site, case, largest (text), and for each region its uncertainty and main score as text.
    """
    regions = _present(doubts)
    rows = []
    for (site, case), part in doubts.groupby(["site", "case"], sort=True):
        by_region = part.set_index("region")
        values = {
            name: [number(by_region[column].get(region), 3) for region in regions]
            for name, column in (("uncertainty", "uncertainty"), ("score", task.MAIN))
        }
        rows.append((-part["uncertainty"].max(), {"site": site, "case": case, **values}))
    rows.sort(key=lambda row: row[0])
    return [{**row, "largest": number(-doubt, 3)} for doubt, row in rows[:listed]]


def _one_arm(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first arm in the order of the report, local models on their own institution's cases."""
    arms = report_arms(frame)
    first = min(set(arms), key=arm_rank, default="")
    return frame[arms == first].reset_index(drop=True)


def _present(frame: pd.DataFrame) -> tuple[str, ...]:
    return task.in_order(set(frame["region"]))

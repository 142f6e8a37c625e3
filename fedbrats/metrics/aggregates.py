"""What is said of cases without saying anything of one of them: numbers that enough cases stand behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

WORDS = ("case", "region", "status")  # of a row of scores; all its other columns are numbers
QUANTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}
NUMBERS = ("cases", "failed", "mean", "sd", *QUANTILES)


def aggregates(rows: Sequence[Mapping[str, Any]], metrics: Iterable[str], least: int) -> list[dict[str, Any]]:
    """Scores by case, summed up by region and metric.

    A quantile is told where at least `least` cases lie on either side of it, and how many cases failed where at least
    `least` did and at least `least` did not, or all or none; else they are None. Nothing at all is told of a region
    with fewer cases than `least`.

    Args:
        rows: one per case and region with `WORDS` and a number for each metric; a failed case has its worst scores.
        metrics: columns that are summed up.
        least: cases behind any number.

    Returns:
        Rows with region, metric and `NUMBERS`: cases, of which failed; mean, sample standard deviation (None for one
        case), quartiles by linear interpolation.
    """
    found, metrics = list[dict[str, Any]](), list(metrics)
    for region in dict.fromkeys(row["region"] for row in rows):
        part = [row for row in rows if row["region"] == region]
        if len(part) < least:
            continue
        failed = sum(row["status"] != "ok" for row in part)
        told = failed in (0, len(part)) or least <= failed <= len(part) - least
        for metric in metrics:
            values = np.array([row[metric] for row in part], float)
            found.append(
                {"region": region, "metric": metric, "cases": len(part), "failed": failed if told else None}
                | _numbers(values, least)
            )
    return found


def _numbers(values: np.ndarray, least: int) -> dict[str, float | None]:
    quantiles = {
        name: float(np.quantile(values, share)) if min(share, 1 - share) * len(values) >= least else None
        for name, share in QUANTILES.items()
    }
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": deviation, **quantiles}


def together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Aggregates of one region and metric at several sites as those of all their cases.

    The mean and the deviation are exact: those of all cases in one list (Chan, Golub and LeVeque 1979, pairwise).
    The deviation is None where one of the sites does not tell its own.
    """
    cases = sum(row["cases"] for row in rows)
    mean = sum(row["cases"] * row["mean"] for row in rows) / cases
    squares: float | None = 0.0
    for row in rows:
        inside = 0.0 if row["cases"] == 1 else row["sd"]
        if inside is None or squares is None:
            squares = None
            continue
        squares += (row["cases"] - 1) * inside**2 + row["cases"] * (row["mean"] - mean) ** 2
    deviation = None if squares is None or cases < 2 else float(np.sqrt(squares / (cases - 1)))
    return {"cases": cases, "mean": mean, "sd": deviation}

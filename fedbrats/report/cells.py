"""How numbers are printed: never NaN, an interval under its mean, a numbered footnote where a number is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.table import BY_NAME, Facts
from fedbrats.report.arms import OF_TRAINING_SITES, arm_rank, arm_title
from fedbrats.report.tables import EVERY_SITE, STATISTICS, no_interval, worst_institution
from fedbrats.tasks import segmentation as task

MISSING = "-"
SEEN_ONLY = "test cases of institutions that trained only, so not the same cases as those of the other arms"


@dataclass
class Footnotes:
    """Reasons in the order in which they are first used."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """Number of a reason, "" for no reason."""
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return str(self.texts.index(text) + 1)


@dataclass(frozen=True)
class Cell:
    """One table cell: the number, what stands small under it, and the number of its footnote."""

    text: str
    small: str = ""
    mark: str = ""


def number(value: float | None, decimals: int) -> str:
    """A number with fixed decimals, "-" for a missing one."""
    return MISSING if value is None or pd.isna(value) else f"{value:.{decimals}f}"


def short(value: float | None) -> str:
    """Four significant digits."""
    return MISSING if value is None or pd.isna(value) else f"{value + 0.0:.4g}"  # no "-0"


def mean_cell(row: dict[str, Any], metric: str, notes: Footnotes, shown_n: int) -> Cell:
    """Mean over its interval, or over the few scores themselves; it names its own n where the row has another."""
    decimals = BY_NAME[metric].decimals
    if pd.isna(row[metric]):
        return Cell(MISSING, mark=notes.mark(row["note"] or "not recorded"))
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    own_n = f"n = {row['n']}" if row["n"] != shown_n else ""
    reasons = (
        [f"{row['failed']} of them could not be scored and count with the worst score"]
        if row["failed"]
        else []
    )
    if pd.isna(low) or pd.isna(high):
        few = row["n"] < MIN_CASES
        reasons.append(no_interval(row["n"]) if few else "the interval was not recorded")
        points = row["points"].get(metric, []) if row["n"] > 1 else []
        interval = ", ".join(number(point, decimals) for point in points)
    else:
        interval = f"{number(low, decimals)} to {number(high, decimals)}"
    small = ", ".join(filter(None, [interval, own_n]))
    return Cell(number(row[metric], decimals), small, notes.mark("; ".join(reasons)))


def percent_cell(rows: list[dict[str, Any]], notes: Footnotes) -> Cell:
    """Percentages of pooled in region order, with the first reason where one is missing."""
    values = [number(row["percent_of_pooled"], 1) for row in rows]
    reasons = [row["note"] for row in rows if pd.isna(row["percent_of_pooled"])]
    mark = notes.mark(reasons[0].split("; ")[-1] or "not recorded") if reasons else ""
    return Cell(MISSING, mark=mark) if set(values) == {MISSING} else Cell(" / ".join(values), mark=mark)


def arm_rows(table: pd.DataFrame, site: str, notes: Footnotes) -> list[dict[str, Any]]:
    """Printable rows of one institution (or "all"), one per arm.

    Args:
        table: result of `institution_table`.

    Returns:
        {"arm", "title", "mark" (footnote of the arm), "n", "scores": for each of `task.SHOWN` a Cell per region,
        "percent": Cell}
    """
    out = []
    part = table[table["site"] == site]
    unseen_too = site == EVERY_SITE and bool((table["unseen"] & (table["n"] > 0)).any())
    for arm in dict.fromkeys(part["arm"]):
        records = part[part["arm"] == arm].to_dict(orient="records")
        shown_n = max(row["n"] for row in records)
        out.append(
            {
                "arm": arm,
                "title": arm_title(arm),
                "mark": notes.mark(SEEN_ONLY) if unseen_too and arm in OF_TRAINING_SITES else "",
                "n": shown_n,
                "scores": [[mean_cell(row, m, notes, shown_n) for row in records] for m in task.SHOWN],
                "percent": percent_cell(records, notes),
            }
        )
    return out


def worst_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Worst institution of each arm by the mean of each of `task.SHOWN`, per region, as text."""
    regions = task.in_order(set(table["region"]))
    return [
        {
            "title": arm_title(arm),
            "scores": [[_worst_cell(table, arm, region, m) for region in regions] for m in task.SHOWN],
        }
        for arm in dict.fromkeys(table["arm"])
    ]


def _worst_cell(table: pd.DataFrame, arm: str, region: str, metric: str) -> Cell:
    worst = worst_institution(table, arm, region, metric)
    if worst is None:
        return Cell(MISSING)
    unseen = ", unseen" if worst["unseen"] else ""
    return Cell(
        number(worst["mean"], BY_NAME[metric].decimals), f"{worst['site']} (n = {worst['n']}{unseen})"
    )


def statistic_rows(frame: pd.DataFrame, metrics: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Printable rows of all statistics over every test case: arm, region, metric, then text per statistic.

    Args:
        frame: result of `statistics`.
        metrics: that were scored, in their order.
    """
    whole = frame[frame["site"] == EVERY_SITE]
    order = {metric: place for place, metric in enumerate(metrics)}
    rows = []
    for row in whole.to_dict(orient="records"):
        known = metrics.get(row["metric"], Facts(row["metric"]))
        texts = {
            name: number(row[name], 0 if name in ("n", "failed") else known.decimals) for name in STATISTICS
        }
        rows.append({**row, **texts, "title": arm_title(row["arm"]), "name": known.named})
    rows.sort(key=lambda row: (order[row["metric"]], task.REGIONS.index(row["region"]), arm_rank(row["arm"])))
    return rows


def shorten(name: str, limit: int = 26) -> str:
    """A label of at most `limit` characters; the middle goes, as institutions tend to differ at the ends."""
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[-tail:]}"

"""The tables of a test reply of a site that keeps its cases' results at home: checked like those with cases."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fedbrats.federation.server.reply_rows import (
    LONGEST,
    MOST_ML,
    MOST_STEPS,
    MOST_VOXELS,
    ROUNDING,
    ROW_BYTES,
    Range,
    forms,
    read_rows,
)
from fedbrats.metrics.aggregates import NUMBERS, QUANTILES
from fedbrats.metrics.table import VOLUMES, Facts
from fedbrats.tasks import segmentation as task

MOST_SENTENCES = 20  # of what a site keeps, and why
COLUMNS = frozenset(("region", "metric", *NUMBERS))
STEP_COLUMNS = COLUMNS | {"order", "step"}


@dataclass(frozen=True)
class Aggregates:
    """rows: one per region and metric, and of each step of post-processing; what the site withheld, in its words."""

    rows: list[dict[str, Any]]
    reliability: list[dict[str, Any]]
    withheld: list[str]


def read_aggregates(
    record: Mapping[str, Any], metrics: Mapping[str, Facts], regions: Collection[str], cases: int
) -> Aggregates:
    """Aggregates that travel as JSON.

    A metric may be missing, as the policy of a site may keep it at home, but not the main one of any region.

    Raises:
        ValueError: not such tables, a metric or region that nobody asked for, other columns, another number of
            cases than the site registered, a number out of its range. The message names row and value.
    """
    ranges = {name: facts.range for name, facts in metrics.items()}
    ranges |= {**dict.fromkeys(VOLUMES, (0.0, MOST_ML)), "uncertainty": (0.0, 1.0)}
    most = len(ranges) * len(regions)
    shown = {name: ranges[name] for name in task.SHOWN} | {"changed_voxels": (0.0, MOST_VOXELS)}
    try:
        rows, withheld = (
            read_list(record.get("rows"), most),
            read_list(record.get("withheld"), MOST_SENTENCES),
        )
        steps = read_list(record.get("steps"), most * MOST_STEPS)
        for row in rows:
            _check(row, COLUMNS, ranges, regions, cases)
        for row in steps:
            _check(row, STEP_COLUMNS, shown, regions, cases)
            if not isinstance(row["step"], str) or len(row["step"]) > LONGEST:
                raise ValueError(f"row {row}")
            if not (isinstance(row["order"], int) and 0 <= row["order"] < MOST_STEPS):
                raise ValueError(f"row {row}")
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    found = {(row["region"], row["metric"]) for row in rows}
    if len(found) < len(rows) or len({(r["region"], r["metric"], r["order"]) for r in steps}) < len(steps):
        raise ValueError("two rows of the same region and metric")
    if missing := [region for region in regions if (region, task.MAIN) not in found]:
        raise ValueError(f"no {task.MAIN_TITLE} of {', '.join(missing)}")
    bins = forms(metrics, regions, cases)["reliability"]
    sentences = [str(text)[:LONGEST] for text in withheld]
    return Aggregates([*rows, *steps], read_rows(record.get("reliability"), bins, regions), sentences)


def read_list(text: Any, most: int) -> list[Any]:
    """A list of at most `most` entries that travels as JSON. Raises ValueError: it is none."""
    if not isinstance(text, str) or len(text) > (most + 1) * ROW_BYTES:
        raise ValueError(f"no text of at most {most} rows")
    rows = json.loads(text)
    if not isinstance(rows, list) or len(rows) > most:
        raise ValueError(f"expected a list of at most {most} rows")
    return rows


def _check(
    row: Mapping[str, Any],
    columns: frozenset[str],
    ranges: Mapping[str, Range],
    regions: Collection[str],
    cases: int,
) -> None:
    if set(row) != columns:
        raise ValueError(f"columns {', '.join(map(str, row))}, expected {', '.join(sorted(columns))}")
    if row["region"] not in regions or row["metric"] not in ranges:
        raise ValueError(f"row {row}")
    if row["cases"] != cases:
        raise ValueError(f"row {row}: the site registered {cases} cases")
    low, high = ranges[row["metric"]]
    told = [row["mean"], *(row[name] for name in QUANTILES if row[name] is not None)]
    for value in told:
        slack = ROUNDING * max(1.0, abs(value))
        if not math.isfinite(value) or not low - slack <= value <= high + slack:
            raise ValueError(f"{row['metric']} is {value}, expected a value in [{low:g}, {high:g}]")
    if row["sd"] is not None and not 0 <= row["sd"] <= (high - low) * (1 + ROUNDING):
        raise ValueError(f"the deviation of {row['metric']} is {row['sd']}")
    if row["failed"] is not None and row["failed"] not in range(cases + 1):
        raise ValueError(f"{row['failed']} of {cases} cases failed")

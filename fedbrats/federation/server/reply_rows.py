"""The tables of a test reply, row by row: what a site tells of its cases ends up in everybody's mean."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedbrats.metrics.table import VOLUMES, Facts
from fedbrats.tasks import segmentation as task

MOST_ML = 1e6  # a cubic metre
MOST_VOXELS = 1e13  # of all cases of a site together
MOST_STEPS = 32  # of post-processing, the prediction before any included
MOST_BINS = 100
LONGEST = 300  # characters of a word
ROW_BYTES = 4096  # of JSON, with more metrics than anybody has
ROUNDING = 1e-6

Range = tuple[float, float]


@dataclass(frozen=True)
class Form:
    """What the rows of a table must be: words, numbers with their ranges, what tells a row from others, how many."""

    words: tuple[str, ...]
    numbers: Mapping[str, Range]
    key: tuple[str, ...]
    most: int


def forms(metrics: Mapping[str, Facts], regions: Collection[str], cases: int) -> dict[str, Form]:
    """The tables of a test of so many `cases` and `regions`, by name."""
    ranges = {name: facts.range for name, facts in metrics.items()}
    shown = {name: ranges[name] for name in task.SHOWN}
    share, rows = (0.0, 1.0), cases * len(regions)
    bins = {"bin_low": share, "bin_high": share, "voxels": (0.0, MOST_VOXELS)}
    return {
        "rows": Form(
            ("case", "region", "status"),
            {**ranges, **dict.fromkeys(VOLUMES, (0.0, MOST_ML)), "uncertainty": share},
            ("case", "region"),
            rows,
        ),
        "steps": Form(
            ("case", "region", "step"),
            {"order": (0.0, MOST_STEPS - 1.0), **shown, "changed_voxels": (0.0, MOST_VOXELS)},
            ("case", "region", "order"),
            rows * MOST_STEPS,
        ),
        "reliability": Form(
            ("region",),
            {**bins, "sum_probability": bins["voxels"], "sum_truth": bins["voxels"]},
            ("region", "bin_low"),
            len(regions) * MOST_BINS,
        ),
    }


def thresholded(metrics: Mapping[str, Facts], regions: Collection[str], cases: int) -> dict[str, Form]:
    """Those of the floor: `forms` without an uncertainty, which a threshold has not."""
    found = forms(metrics, regions, cases)
    numbers = {name: range_ for name, range_ in found["rows"].numbers.items() if name != "uncertainty"}
    return found | {"rows": replace(found["rows"], numbers=numbers)}


def classified(metrics: Mapping[str, Facts], regions: Collection[str], cases: int) -> dict[str, Form]:
    """The table of a test of so many `cases` that have one label each."""
    share = (0.0, 1.0)
    numbers = {"score": share, "label": share}
    return {"rows": Form(("case", "region", "status"), numbers, ("case", "region"), cases * len(regions))}


def read_rows(text: Any, form: Form, regions: Collection[str]) -> list[dict[str, Any]]:
    """Rows that travel as JSON.

    Raises:
        ValueError: not such a table; more rows than there can be, the same one twice, a region that nobody asked for,
            a number out of its range. The message names row and value.
    """
    if not isinstance(text, str) or len(text) > (form.most + 1) * ROW_BYTES:
        raise ValueError(f"no text of at most {form.most} rows")
    try:
        rows = json.loads(text)
        if not isinstance(rows, list) or len(rows) > form.most:
            raise ValueError(f"{len(rows)} rows, expected a list of at most {form.most}")
        for row in rows:
            _check_row(row, form, regions)
        if len({tuple(row[name] for name in form.key) for row in rows}) < len(rows):
            raise ValueError(f"two rows of the same {', '.join(form.key)}")
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return rows


def _check_row(row: Mapping[str, Any], form: Form, regions: Collection[str]) -> None:
    for name in form.words:
        if not isinstance(row[name], str) or (len(row[name]) > LONGEST and name != "status"):
            raise ValueError(f"row {row}")
    if row["region"] not in regions:
        raise ValueError(f"region {row['region']!r}, expected {', '.join(regions)}")
    for name, (low, high) in form.numbers.items():
        if not math.isfinite(row[name]):
            raise ValueError(f"row {row}")
        slack = ROUNDING * max(1.0, abs(row[name]))
        if not low - slack <= row[name] <= high + slack:
            raise ValueError(f"{name} is {row[name]}, expected a value in [{low:g}, {high:g}]")

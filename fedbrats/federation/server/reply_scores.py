"""The scores of a classification as a site tells them that keeps single cases: checked before they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedbrats.federation.server.reply_aggregates import MOST_SENTENCES, Aggregates, read_list
from fedbrats.federation.server.reply_rows import LONGEST, ROUNDING
from fedbrats.metrics.classification import SCORES
from fedbrats.tasks.told import BRIER, FAILED, OF_CLASSES, P_CHANCE, POSITIVES

KNOWN = (*SCORES, P_CHANCE, POSITIVES, FAILED)
COLUMNS = {"metric", "value", "cases"}


def read_scores(record: Mapping[str, Any], cases: int) -> Aggregates:
    """Scores of a test of so many `cases` that travel as JSON; a site may keep any but the Brier score.

    Raises:
        ValueError: no such table, a number that nobody asked for, twice or out of its range, other numbers of cases
            behind it than there can be. The message names row and value.
    """
    try:
        rows, withheld = (
            read_list(record.get(name), most)
            for name, most in (("rows", len(KNOWN)), ("withheld", MOST_SENTENCES))
        )
        for name in ("steps", "reliability"):
            read_list(record.get(name), 0)  # of voxels
        _check(rows, cases)
    except (AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Aggregates(rows, [], [str(text)[:LONGEST] for text in withheld])


def _check(rows: list[dict[str, Any]], cases: int) -> None:
    told = {row["metric"]: row for row in rows}
    if len(told) < len(rows) or not told.keys() <= set(KNOWN):
        raise ValueError(f"metrics {', '.join(str(row['metric']) for row in rows)}")
    if BRIER not in told:
        raise ValueError("no Brier score")
    positives = told[POSITIVES]["value"] if POSITIVES in told else None
    if positives is None and told.keys() & set(OF_CLASSES):
        raise ValueError(f"scores of one label without {POSITIVES}")
    for name, row in told.items():
        if set(row) != COLUMNS or isinstance(row["value"], bool) or not math.isfinite(row["value"]):
            raise ValueError(f"row {row}")
        if name in (POSITIVES, FAILED):
            low, high = (1, cases - 1) if name == POSITIVES else (0, cases)
            if not isinstance(row["value"], int) or not low <= row["value"] <= high:
                raise ValueError(f"row {row}, expected a whole number from {low} to {high}")
        elif not -ROUNDING <= row["value"] <= 1 + ROUNDING:
            raise ValueError(f"{name} is {row['value']}, expected a value in [0, 1]")
    behind = {} if positives is None else {"sensitivity": positives, "specificity": cases - positives}
    for name, row in told.items():
        if row["cases"] != behind.get(name, cases):
            raise ValueError(f"row {row}: there are {behind.get(name, cases)} cases behind it")

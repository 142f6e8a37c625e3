"""The tables of a run that classifies: a score and the label of every test case, and what comes of them.

Where a site keeps the results of single cases, `aggregates.csv` has what it tells in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.metrics.summary import ALL_SITES
from fedbrats.runs.table import Table
from fedbrats.tasks.classification import NUMBERS, by_institution, local_at_home, verdict
from fedbrats.tasks.told import KEPT

_TEXT = ("arm", "site", "case", "status")
CASES = Table("cases.csv", ("arm", "site", "case", "score", "label", "status"), text=_TEXT, needed=_TEXT)
INSTITUTIONS = Table(
    "institutions.csv",
    ("arm", "site", *NUMBERS, KEPT),
    text=("arm", "site", KEPT),
    needed=("arm", "site", "n", "auc", "p_chance"),
    line_end="\n",
)
_TOLD = ("arm", "site", "metric", "value", "cases")
AGGREGATES = Table("aggregates.csv", _TOLD, text=_TOLD[:3], needed=_TOLD, line_end="\n")


def write_scores(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write `cases.csv` and, where there are test results, `institutions.csv`; what of them stands in `summary.json`.

    Sites that keep the results of single cases are in `aggregates.csv` of the folder, if there are any.
    """
    CASES.write(folder, rows, private=True)
    told = AGGREGATES.read(folder)
    if not rows and not len(told):
        return {}
    table = by_institution(local_at_home(CASES.read(folder)), told)
    found = [_finite(row) for row in table.to_dict("records")]
    INSTITUTIONS.write(folder, found, private=True)
    arms: dict[str, Any] = {}
    for row in found:
        numbers = {name: None if row[name] == "" else row[name] for name in NUMBERS}
        numbers |= {KEPT: row[KEPT]} if row[KEPT] else {}
        arm = arms.setdefault(row["arm"], {"all": {}, "sites": {}})
        if row["site"] == ALL_SITES:
            arm["all"], arm["verdict"] = (
                numbers,
                verdict({**row, **{name: _number(row[name]) for name in ("auc", "p_chance")}}),
            )
        else:
            arm["sites"][row["site"]] = numbers
    return {"classification": arms}


def read_institutions(folder: Path) -> pd.DataFrame:
    """What `write_scores` worked out, numbers as float64; no rows without the file.

    Raises:
        RunFolderError: it cannot be read.
    """
    return INSTITUTIONS.read(folder)


def _finite(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What is not known stays empty."""
    return {str(name): "" if pd.isna(value) else value for name, value in row.items()}


def _number(value: Any) -> float:
    return float("nan") if value == "" else float(value)

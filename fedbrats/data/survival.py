"""Days of survival from a table, such as the one that BraTS 2017 to 2020 bring."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from fedbrats.config.targets import ConfigError
from fedbrats.data.patients import same
from fedbrats.data.tables import CASE_HEADERS, find_column, open_table

CASES = ("brats20id", "brats19id", "brats18id", "bratsid", *CASE_HEADERS)
DAYS = ("survival_days", "survival", "survival_from_surgery_days")
UNKNOWN = {"", "na", "nan", "not available"}
_ALIVE = re.compile(r"alive\s*\(\s*(\d+)\s*days later\s*\)", re.IGNORECASE)


@dataclass(frozen=True)
class Survival:
    """days: until death, or until the patient was last seen, alive, where `died` is False."""

    days: float
    died: bool


def read_survival(path: Path | str) -> dict[str, Survival]:
    """Read a table that has days of survival, or "ALIVE (361 days later)", beside case names.

    Returns:
        Case name in the letters of `patients.same` -> survival; rows without days are passed over.

    Raises:
        ConfigError: no such file, columns not found, a number of days that is none, or a case listed twice.
    """
    path = Path(path)
    table = open_table(path, "survival")
    try:
        names = find_column(path, table.columns, None, CASES, "")
        days = find_column(path, table.columns, None, DAYS, "")
    except ConfigError as error:
        raise ConfigError(
            f"survival={path}: needs a column {CASES[0]} or case, and one {DAYS[0]} or {DAYS[1]}; it has "
            f"{list(table.columns)}"
        ) from error
    found = dict[str, Survival]()
    for case, text in zip(table[names], table[days], strict=True):
        name, text = same(case.strip()), text.strip()
        if not name or text.lower() in UNKNOWN:
            continue
        if name in found:
            raise ConfigError(f"survival={path}: {case} is listed twice; keep one line.")
        found[name] = _survival(text, case, path)
    return found


def _survival(text: str, case: str, path: Path) -> Survival:
    alive = _ALIVE.fullmatch(text)
    try:
        days = float(alive[1] if alive else text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise ConfigError(
            f'survival={path}: {case} has {text!r}, expected days or "ALIVE (361 days later)"; mend it, or '
            "leave it empty."
        )
    return Survival(days, alive is None)

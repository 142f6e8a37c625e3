"""`rounds.csv`: one row per reply and one per aggregation, written as the run goes."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedbrats.data.regions import REGIONS
from fedbrats.files import write_csv

COLUMNS = (
    *("round", "arm", "site", "phase", "status", "cases", "loss"),
    *(f"dice_{region.lower()}" for region in REGIONS),
    *("seconds", "bytes_down", "bytes_up"),
)
SERVER = "server"  # the "site" of an aggregation row
Row = dict[str, Any]


def row(round_: int, arm: str, site: str, phase: str, status: str = "ok", **values: Any) -> Row:
    """One row; what is not given stays empty.

    `phase` is train, val, fit, test or round, `status` is ok or failed: reason.
    """
    given = {"round": round_, "arm": arm, "site": site, "phase": phase, "status": status, **values}
    unknown = given.keys() - set(COLUMNS)
    if unknown:
        raise KeyError(f"no such column in rounds.csv: {sorted(unknown)}")
    return {column: given.get(column, "") for column in COLUMNS}


def dice_columns(dice: dict[str, float]) -> dict[str, float]:
    """The columns that hold Dice by region."""
    return {f"dice_{region.lower()}": value for region, value in dice.items()}


def start(file: Path, up_to_round: int) -> None:
    """Begin `file`, or keep of an existing one only what was trained up to round `up_to_round` (a resume)."""
    kept: list[Row] = []
    if file.exists() and up_to_round:
        with file.open(newline="") as handle:
            whole = [
                r for r in csv.DictReader(handle) if None not in r.values()
            ]  # a kill may cut the last line
        kept = [r for r in whole if int(r["round"]) <= up_to_round and r["phase"] not in ("fit", "test")]
    write_csv(file, COLUMNS, kept)


def append(file: Path, rows: Iterable[Row]) -> None:
    """Add `rows` to `file`, which `start` has begun."""
    with file.open("a", newline="") as handle:
        csv.DictWriter(handle, COLUMNS).writerows(rows)

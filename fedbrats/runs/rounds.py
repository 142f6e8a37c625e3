"""`rounds.csv`: one row per reply and one per aggregation, written as the run goes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.table import Row, Table
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION
from fedbrats.tasks.task import Task

TEXT = ("arm", "site", "phase", "status")


def table_of(of: Task) -> Table:
    """The file as a run of this task has it."""
    scores, costs = of.columns.values(), ("seconds", "bytes_down", "bytes_up", "hours")
    columns = ("round", *TEXT, "cases", "steps", "loss", *scores, *costs)
    return Table("rounds.csv", columns, text=TEXT, needed=("round", *TEXT))


TABLE, CLASSIFIED = table_of(task.SEGMENTATION), table_of(CLASSIFICATION)
SERVER = "server"  # the "site" of an aggregation row
AT_THE_END = ("fit", "test")  # phases after the last round
REFUSED = (
    "refused"  # "phase" of a message that nobody waited for: late, a second one, or from a stranger (site "")
)


def row(round_: int, arm: str, site: str, phase: str, status: str = "ok", **values: Any) -> Row:
    """One row; what is not given stays empty.

    `hours` are those of the simulated clock: of a site its own in the round, of the server all until the round's end.
    `phase` is train, unmask (of secure aggregation, failures only), val, fit, test, refused or round; `status` is ok
    or failed: reason.
    """
    given = {"round": round_, "arm": arm, "site": site, "phase": phase, "status": status, **values}
    table = CLASSIFIED if given.keys() & set(CLASSIFICATION.columns.values()) else TABLE
    unknown = given.keys() - set(table.columns)
    if unknown:
        raise KeyError(f"no such column in rounds.csv: {sorted(unknown)}")
    return {column: given.get(column, "") for column in table.columns}


def start(folder: Path, up_to_round: int, of: Task = task.SEGMENTATION) -> None:
    """Begin the file, or keep of an existing one only what was trained up to round `up_to_round` (a resume)."""
    kept = TABLE.rows(folder) if up_to_round else []
    table_of(of).write(
        folder, [r for r in kept if int(r["round"]) <= up_to_round and r["phase"] not in AT_THE_END]
    )


def used(folder: Path, arm: str) -> dict[str, int]:
    """Rounds in which a training reply in `arm` was used, by site; of those that `start` kept and what was added."""
    found: dict[str, set[int]] = {}
    for r in TABLE.rows(folder):
        if (r["arm"], r["phase"], r["status"]) == (arm, "train", "ok"):
            found.setdefault(str(r["site"]), set()).add(int(r["round"]))
    return {site: len(numbers) for site, numbers in found.items()}


def simulated_hours(folder: Path) -> float:
    """Hours of the simulated clock at the end of the last round, 0 without one."""
    told = [row["hours"] for row in TABLE.rows(folder) if row["phase"] == "round" and row.get("hours")]
    return float(told[-1]) if told else 0.0


def append(folder: Path, rows: Iterable[Row]) -> None:
    """Add `rows` to the file, which `start` has begun, in its columns."""
    table = CLASSIFIED if _classified(folder) else TABLE
    table.append(folder, ({name: found.get(name, "") for name in table.columns} for found in rows))


def _classified(folder: Path) -> bool:
    """Whether the file in `folder` is that of a run that classifies."""
    file = folder / TABLE.name
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as handle:
        return handle.readline().rstrip("\r\n").split(",") == list(CLASSIFIED.columns)


def read_rounds(folder: Path, missing: list[str] | None = None) -> pd.DataFrame:
    """The rows with the columns of `TABLE` and those of their task, `round` as int64; `missing` as in `Table.read`.

    Raises:
        RunFolderError: the file cannot be read, or a row has no round.
    """
    found = (CLASSIFIED if _classified(folder) else TABLE).read(folder, missing)
    found = found.assign(**{column: np.nan for column in TABLE.columns if column not in found})
    if (without := found["round"].isna()).any():
        raise RunFolderError(
            f"{folder / TABLE.name}: line {int(without.to_numpy().argmax()) + 2} has no round"
        )
    return found.assign(round=found["round"].astype("int64"))

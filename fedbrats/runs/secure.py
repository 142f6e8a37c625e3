"""`secure_rounds.csv`: what secure aggregation really used in each round whose sum was unmasked."""

from __future__ import annotations

from pathlib import Path

from fedbrats.runs.table import Table

COLUMNS = (
    "round",
    "asked",  # sites
    "threshold",  # of them, that had to stay to the end
    "summed",  # sites whose models are in the sum
    "cases",  # theirs
    "bits",  # after the point of the numbers that were added up
    "error",  # by which rounding moved an element of the mean at most
)
TABLE = Table("secure_rounds.csv", COLUMNS, text=(), needed=COLUMNS)


def start(folder: Path, up_to_round: int) -> None:
    """Begin the file, or keep of an existing one the rounds up to `up_to_round` (a resume)."""
    kept = TABLE.rows(folder) if up_to_round else []
    TABLE.write(folder, [row for row in kept if int(row["round"]) <= up_to_round])

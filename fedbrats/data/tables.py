"""Tables that people bring, such as one that maps cases to institutions: opening one, finding its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from fedbrats.config.targets import ConfigError

CASE_HEADERS = (
    "subject_id",
    "subject",
    "case",
    "case_id",
    "case_name",
    "patient",
    "patient_id",
    "name",
    "id",
)
SITE_HEADERS = (
    "partition_id",
    "institution",
    "institution_id",
    "site",
    "site_id",
    "centre",
    "center",
    "hospital",
)


def open_table(path: Path) -> pd.DataFrame:
    """`partition.table` as text: comma, semicolon or tab separated, with a header line.

    Raises:
        ConfigError: no such file.
    """
    if not path.is_file():
        raise ConfigError(f"partition.table: no such file {path}")
    text = path.read_text(encoding="utf-8-sig")
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    table.columns = [str(column).strip() for column in table.columns]
    return table


def known_header(columns: Iterable[str], headers: Sequence[str]) -> str | None:
    """The column that has one of the usual `headers`, the first of them."""
    lower = {column.lower().replace(" ", "_"): column for column in columns}
    return next((lower[header] for header in headers if header in lower), None)


def find_column(
    path: Path, columns: Iterable[str], asked: str | None, headers: Sequence[str], key: str
) -> str:
    """The column that was asked for by `key`, else the one with a usual header.

    Raises:
        ConfigError: there is none; the message names the columns.
    """
    columns = list(columns)
    found = known_header(columns, headers) if asked is None else asked
    if found not in columns:
        reason = "no usual header was recognised" if asked is None else f"there is no column {asked!r}"
        raise ConfigError(f"{path}: {reason}; set {key} to one of {columns}")
    return found


def unique(path: Path, pairs: Iterable[tuple[str, str]], of: str) -> dict[str, str]:
    """The pairs as a mapping.

    Raises:
        ConfigError: one case has two `of`, such as institutions.
    """
    table: dict[str, str] = {}
    for case, value in pairs:
        if table.setdefault(case, value) != value:
            raise ConfigError(f"{path}: {case} is in two {of}, {table[case]} and {value}; keep one line")
    return table

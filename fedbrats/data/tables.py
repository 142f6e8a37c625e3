"""Tables that people bring, such as one that maps cases to institutions: opening one, finding its columns."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from fedbrats.config.targets import ConfigError
from fedbrats.data.patients import same
from fedbrats.files import read_text

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
    "site_no",
    "site_no_(represents_the_originating_institution)",  # the mapping of BraTS 2017 to 2023
)
_RELEASE = re.compile(
    r"brats[ _]?(20)?(1[7-9]|2\d)", re.IGNORECASE
)  # its columns of case names, one per year
_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .xls


def open_table(path: Path, key: str = "partition.table") -> pd.DataFrame:
    """A table as text: comma, semicolon or tab separated, with a header line; the encoding is in its `attrs`.

    Args:
        path: of the file.
        key: that names it in the configuration.

    Raises:
        ConfigError: no such file, an Excel file, or no table; the message names the fix.
    """
    if not path.is_file():
        raise ConfigError(f"{key}: no such file {path}")
    text, encoding = _text(path, key)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    try:
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(
            f"{path}: no table with a header line and a separator , ; or tab ({reason})"
        ) from error
    table.columns = [str(column).strip() for column in table.columns]
    table.attrs["encoding"] = encoding
    return table


def _text(path: Path, key: str) -> tuple[str, str]:
    """The text of a table and its encoding: UTF-8, UTF-16 with a mark, else that of Excel in western Europe."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_EXCEL):
        raise ConfigError(f"{path}: an Excel file; save it as 'CSV UTF-8' (.csv) and name that file in {key}")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decoded(path, "utf-16"), "UTF-16"
    try:
        return read_text(path, encoding="utf-8-sig"), "UTF-8"
    except ValueError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise ConfigError(str(error)) from error
        return _decoded(path, "cp1252"), "Windows-1252"


def _decoded(path: Path, encoding: str) -> str:
    try:
        return read_text(path, encoding=encoding)
    except ValueError as error:
        raise ConfigError(
            f"{path}: no text in UTF-8, UTF-16 or Windows-1252; save it as 'CSV UTF-8'"
        ) from error


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


def case_columns(path: Path, columns: Iterable[str], asked: str | None) -> list[str]:
    """The columns of case names: the one that was asked for or has a usual header, else one per release of BraTS.

    Raises:
        ConfigError: there is none; the message names the columns.
    """
    columns = list(columns)
    releases = [column for column in columns if _RELEASE.fullmatch(column)]
    if asked is None and releases and known_header(columns, CASE_HEADERS) is None:
        return releases
    return [find_column(path, columns, asked, CASE_HEADERS, "partition.case_column")]


def unique(path: Path, pairs: Iterable[tuple[str, str]], of: str) -> dict[str, str]:
    """The pairs as a mapping; names that differ in letter case are the same.

    Raises:
        ConfigError: one case has two `of`, such as institutions.
    """
    table: dict[str, str] = {}
    known: dict[str, str] = {}
    for case, value in pairs:
        first = known.setdefault(same(case), value)
        if same(first) != same(value):
            raise ConfigError(f"{path}: {case} is in two {of}, {first} and {value}; keep one line")
        table[case] = first
    return table

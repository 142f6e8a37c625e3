"""What `partition.table` says: which institution, and which patient, a case is of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fedbrats.config.targets import ConfigError
from fedbrats.data.datalists import datalist_rows
from fedbrats.data.sentences import some
from fedbrats.data.site_names import institution_from_name
from fedbrats.data.tables import (
    SITE_HEADERS,
    case_columns,
    find_column,
    known_header,
    open_table,
    unique,
)


def read_table(
    path: Path | str, case_column: str | None = None, site_column: str | None = None
) -> dict[str, str]:
    """Read a table that maps cases to institutions: comma, semicolon or tab separated, with a header line.

    Args:
        path: a folder of datalists (`datalists.py`), or a file: two columns are used, others are passed over. The wide
            name mapping that BraTS publishes (several `..._subject_ID` columns, no institution) is understood too: all
            names of a line get the institution that one of them tells; and its mapping of 2017 to 2023, whose
            `Site No (...)` stands beside one column of names per year.
        case_column: header of the case names; None recognises the usual ones, such as Subject_ID.
        site_column: header of the institutions; None recognises the usual ones, such as Partition_ID.

    Returns:
        Case name -> institution, as written in the table; rows that lack one of them are passed over.

    Raises:
        ConfigError: no such file, columns not found, or one case in two institutions.
    """
    path = Path(path)
    return unique(path, table_rows(path, case_column, site_column)[0], "institutions")


def read_cases(path: Path | str, case_column: str | None = None) -> list[str]:
    """The cases that a table lists, in their order; other columns are passed over.

    Raises:
        ConfigError: no such file, no column of case names, or no case in it.
    """
    path = Path(path)
    table = open_table(path)
    columns = case_columns(path, table.columns, case_column)
    found = [name.strip() for row in table[columns].itertuples(index=False) for name in row if name.strip()]
    if not found:
        raise ConfigError(f"{path}: lists no case")
    return found


def table_rows(
    path: Path, case_column: str | None, site_column: str | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of case and institution, and a sentence on the rows that were passed over."""
    if path.is_dir():
        return datalist_rows(path), []
    table = open_table(path)
    if case_column is None and site_column is None:
        names = [column for column in table.columns if column.lower().endswith("_subject_id")]
        if len(names) > 1 and known_header(table.columns, SITE_HEADERS) is None:
            return _wide_rows(path, table[names])
    cases = case_columns(path, table.columns, case_column)
    site = find_column(path, table.columns, site_column, SITE_HEADERS, "partition.site_column")
    if site in cases:
        raise ConfigError(f"{path}: partition.case_column and partition.site_column are both {site!r}")
    pairs, nameless, siteless = list[tuple[str, str]](), 0, list[str]()
    for cells, value in zip(table[cases].itertuples(index=False), table[site], strict=True):
        names, institution = _names(cells), str(value).strip()
        nameless += not names
        if names and not institution:
            siteless.append(names[0])
        pairs += [(name, institution) for name in names if institution]
    notes = []
    if nameless:
        notes.append(f"{path}: rows without a name in {' or '.join(cases)} passed over: {nameless}")
    if siteless:
        notes.append(f"{path}: rows without {site} passed over: {some(siteless)}")
    return pairs, notes


def _names(cells: Iterable[object]) -> list[str]:
    return [text for cell in cells if (text := str(cell).strip()) not in ("", "NA")]


def read_patients(path: Path | str, patient_column: str, case_column: str | None = None) -> dict[str, str]:
    """Read which patient a table gives to each case: case name -> patient, without the empty cells.

    Raises:
        ConfigError: no such file, columns not found, or one case of two patients.
    """
    path = Path(path)
    table = open_table(path)
    patient = find_column(path, table.columns, patient_column, (), "partition.patient_column")
    others = [column for column in table.columns if column != patient or column == case_column]
    cases = case_columns(path, others, case_column)
    if patient in cases:
        raise ConfigError(f"{path}: partition.case_column and partition.patient_column are both {patient!r}")
    pairs = [
        (name, str(value).strip())
        for cells, value in zip(table[cases].itertuples(index=False), table[patient], strict=True)
        for name in _names(cells)
    ]
    return unique(path, [pair for pair in pairs if all(pair)], "patients")


def _wide_rows(path: Path, names: pd.DataFrame) -> tuple[list[tuple[str, str]], list[str]]:
    pairs, silent = list[tuple[str, str]](), list[str]()
    for line, row in enumerate(names.itertuples(index=False), start=2):
        cells = _names(row)
        sites = {site for site in map(institution_from_name, cells) if site}
        if len(sites) > 1:
            raise ConfigError(f"{path}, line {line}: {cells} tell more than one institution {sorted(sites)}")
        if not sites:
            silent.append(cells[0] if cells else f"line {line}")
        pairs += [(cell, site) for cell in cells for site in sites]
    notes = [f"{path}: rows whose names tell no institution passed over: {some(silent)}"] if silent else []
    return pairs, notes

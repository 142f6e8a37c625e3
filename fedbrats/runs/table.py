"""A CSV file of a run folder: one definition of its columns, by which it is written and read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.files import from_cell, read_text, write_csv, write_rows
from fedbrats.runs.reading import RunFolderError

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One file.

    name: of the file; columns: in their order; text: those of them that are no numbers; needed: those without which it
    cannot be read; line_end: of its lines.

    A reader goes by names: a column it does not know stays as text, one that is missing and not needed is empty.
    """

    name: str
    columns: tuple[str, ...]
    text: tuple[str, ...]
    needed: tuple[str, ...]
    line_end: str = "\r\n"

    def write(self, folder: Path, rows: Iterable[Mapping[str, Any]], private: bool = False) -> None:
        """Replace the file in `folder`; what a row lacks stays empty. Nobody else may read a `private` one.

        Raises:
            ValueError: a row has something else; the file stays as it was.
        """
        write_csv(folder / self.name, self.columns, rows, self.line_end, private)

    def append(self, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to the file in `folder`, which `write` has begun."""
        with (folder / self.name).open("a", newline="", encoding="utf-8") as handle:
            write_rows(handle, self.columns, rows, self.line_end)

    def rows(self, folder: Path) -> list[dict[str, str]]:
        """The whole rows of the file as they stand in it, none without the file; a kill may cut the last line."""
        file = folder / self.name
        if not file.is_file():
            return []
        with file.open(newline="", encoding="utf-8") as handle:
            rows = [row for row in csv.DictReader(handle) if None not in (*row, *row.values())]
        return [{from_cell(key): from_cell(value) for key, value in row.items()} for row in rows]

    def read(self, folder: Path, missing: list[str] | None = None) -> pd.DataFrame:
        """Text as str, numbers as float64 (empty is NaN); no rows without the file.

        Args:
            folder: of the file.
            missing: is told in a sentence what is not there or not complete.

        Raises:
            RunFolderError: it cannot be read, or a needed column is missing.
        """
        file, said = folder / self.name, [] if missing is None else missing
        frame = _lines(file, said)
        if frame is None:
            return self._typed(pd.DataFrame(columns=list(self.columns), dtype=str), file)
        absent = [column for column in self.needed if column not in frame]
        if absent:
            raise RunFolderError(f"{file}: columns missing: {', '.join(absent)}")
        return self._typed(frame.assign(**{c: "" for c in self.columns if c not in frame}), file)

    def _typed(self, frame: pd.DataFrame, file: Path) -> pd.DataFrame:
        for column in self.columns:
            frame[column] = (
                frame[column].astype("str") if column in self.text else _numbers(frame[column], file)
            )
        return frame


def _lines(file: Path, missing: list[str]) -> pd.DataFrame | None:
    """The file as text; a last line without line end (killed while writing) is left out."""
    if not file.is_file():
        missing.append(f"{file.name} is missing.")
        return None
    try:
        content = read_text(file)
    except ValueError as error:
        raise RunFolderError(f"{error}; not readable as CSV") from error
    if content and not content.endswith("\n"):
        content = content[: content.rfind("\n") + 1]
        missing.append(f"The last line of {file.name} was not written completely and is left out.")
    if not content.strip():
        missing.append(f"{file.name} is empty.")
        return None
    try:
        # Text stays text: sites are called "2013", "1" or "NA".
        frame = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
    except pd.errors.ParserError as error:
        raise RunFolderError(f"{file}: not readable as CSV ({error})") from error
    return frame.rename(columns=from_cell).map(from_cell)


def write_frame(file: Path, frame: pd.DataFrame) -> None:
    """Replace `file` by `frame`, each cell as `files.to_cell` makes it; what is missing stays empty."""
    cells = frame.astype(object).where(frame.notna(), "")
    write_csv(file, [str(column) for column in cells], cells.to_dict("records"), "\n")


def _numbers(column: pd.Series, file: Path) -> pd.Series:
    numbers = pd.to_numeric(column.replace("", np.nan), errors="coerce").astype(float)
    wrong = numbers.isna() & ~column.str.strip().str.lower().isin(["", "nan", "none"])
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2
        raise RunFolderError(
            f"{file}: line {line}, column {column.name}: {column[wrong].iloc[0]!r} is no number"
        )
    return numbers

"""How files are written that must survive a crash: after it, the old one or the new one is there, as a whole."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path in the folder of `file` (made if missing) to write to; it becomes `file` when the context ends well.

    The name ends like that of `file`, so that libraries which go by it do the same. Several processes may replace the
    same file at once; one of them wins.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".partial-{os.urandom(4).hex()}-{file.name}")
    try:
        yield unfinished
        _to_disk(unfinished)
        os.replace(unfinished, file)
        _to_disk(file.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_folder(unfinished: Path, folder: Path) -> None:
    """Let `unfinished`, a folder whose files are complete, become `folder`, which is not there.

    Raises:
        OSError: `folder` is there and not empty.
    """
    for file in unfinished.iterdir():
        _to_disk(file)
    _to_disk(unfinished)
    os.replace(unfinished, folder)
    _to_disk(folder.parent)


def write_text(file: Path, text: str) -> None:
    """Replace `file` by `text`."""
    with replacing(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any) -> None:
    """Replace `file` by `content`, which has no NaN and no infinity.

    Raises:
        ValueError: it has; the file stays as it was.
    """
    write_text(file, json.dumps(content, indent=1, allow_nan=False))


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: an infinite number becomes text, inside lists and mappings too."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


def write_csv(
    file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], line_end: str = "\r\n"
) -> None:
    """Replace `file` by `rows` under `columns`; what a row lacks stays empty.

    Raises:
        ValueError: a row has something else; the file stays as it was.
    """
    with replacing(file) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)


def _to_disk(path: Path) -> None:
    """Have the operating system write a file or folder out, as far as it can be asked to."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder, on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

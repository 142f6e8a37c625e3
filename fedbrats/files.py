"""How files are written and read.

Written so that they survive a crash: after it, the old one or the new one is there, as a whole. Read with a limit, as
a file may come from anybody: what is too large, nested too deeply or grows when it is unfolded is refused by name.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

MAX_BYTES = 64 * 2**20  # of a JSON file or a table; the lists of a thousand cases take 2 MB
MAX_YAML_BYTES = 2**20  # of a configuration; a run's own takes 10 kB
MAX_DEPTH = 64  # lists and mappings inside each other


PARTIAL = re.compile(r"\.partial-[0-9a-f]{8}-")  # a file that is not finished, by `replacing`
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600  # nobody else may look in


def private_folder(folder: Path) -> Path:
    """`folder`, made if missing, which nobody else may look into; one that was there before is closed too."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    folder.chmod(PRIVATE_FOLDER)
    return folder


@contextmanager
def replacing(file: Path, private: bool = False) -> Iterator[Path]:
    """A path in the folder of `file` (made if missing) to write to; it becomes `file` when the context ends well.

    The name ends like that of `file`, so that libraries which go by it do the same. Several processes may replace the
    same file at once; one of them wins. Nobody else may read a `private` one.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".partial-{os.urandom(4).hex()}-{file.name}")
    try:
        if private:
            os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE))
        yield unfinished
        if private:
            unfinished.chmod(PRIVATE_FILE)  # some libraries make the file anew
        _to_disk(unfinished)
        os.replace(unfinished, file)
        _to_disk(file.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_partial(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes left of files that `replacing` was writing below `folder`; links are not followed.

    Args:
        folder: may be missing.
        older_than: seconds since a file was last written to; 0 only where no other process writes.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            if PARTIAL.match(name):
                with suppress(OSError):  # another process was faster, or it is not ours to remove
                    if time.time() - os.lstat(Path(parent, name)).st_mtime >= older_than:
                        os.unlink(Path(parent, name))


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


def write_text(file: Path, text: str, private: bool = False) -> None:
    """Replace `file` by `text`; nobody else may read a `private` one."""
    with replacing(file, private) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any, private: bool = False) -> None:
    """Replace `file` by `content`, which has no NaN and no infinity; nobody else may read a `private` one.

    Raises:
        ValueError: it has; the file stays as it was.
    """
    write_text(file, json.dumps(content, indent=1, allow_nan=False), private)


def read_text(file: Path, limit: int = MAX_BYTES, encoding: str = "utf-8") -> str:
    """The text of `file`.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no ordinary file, has more than `limit` bytes or another encoding; the message names it.
    """
    if file.exists() and not file.is_file():  # a pipe or a device would be read for ever
        raise ValueError(f"{file}: not an ordinary file")
    with file.open("rb") as handle:
        content = handle.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{file}: more than {limit} bytes, too large for a file of this kind")
    try:
        # A wrapper, so that line ends come out as `Path.read_text` gives them.
        return io.TextIOWrapper(io.BytesIO(content), encoding=encoding).read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not text in {encoding} ({error})") from error


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is not JSON, larger than `MAX_BYTES`, or nested deeper than `MAX_DEPTH`; the message names it.
    """
    text = read_text(file)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error})") from error
    _check_depth(content, file)
    return content


def _check_depth(content: Any, file: Path) -> None:
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(MAX_DEPTH):
        inside = (
            inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)
        )
        level = [inner for inner in inside if isinstance(inner, dict | list)]
    if level:
        raise ValueError(f"{file}: nested deeper than {MAX_DEPTH} levels")


# libyaml, where it is there, gives the same events several times as fast.
_EVENTS: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(file: Path) -> DictConfig | ListConfig:
    """The content of a YAML file as OmegaConf reads it, interpolations left as written.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is not YAML, larger than `MAX_YAML_BYTES`, nested deeper than `MAX_DEPTH`, or has aliases, a few
            hundred bytes of which unfold to gigabytes; the message names it.
    """
    text = read_text(file, MAX_YAML_BYTES)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_EVENTS):  # events, which unfold nothing
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{file}: has an alias (*{event.anchor}), write out what it stands for")
            if depth > MAX_DEPTH:
                raise ValueError(f"{file}: nested deeper than {MAX_DEPTH} levels")
        return OmegaConf.load(io.StringIO(text))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not readable as YAML ({error})") from error


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: an infinite number becomes text, inside lists and mappings too."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


# What a spreadsheet would run, or what stands for it; the wide forms come from East Asian keyboards.
_FORMULA = re.compile("'*(?:[=@\t\r\n\uff1d\uff20]|[+\\-\uff0b\uff0d].)", re.DOTALL)


def to_cell(value: Any) -> Any:
    """A value as a cell of a table: text that a spreadsheet would run as a formula gets an apostrophe before it.

    Text begins so with =, +, -, @ (their wide forms too), a tab or a line end (OWASP, CSV injection); -1.5 is a number
    and stays one.
    """
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """What `to_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write_csv(
    file: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    line_end: str = "\r\n",
    private: bool = False,
) -> None:
    """Replace `file` by `rows` under `columns`, each cell as `to_cell` makes it; what a row lacks stays empty.

    Nobody else may read a `private` one.

    Raises:
        ValueError: a row has something else; the file stays as it was.
    """
    with replacing(file, private) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator=line_end).writerow(map(to_cell, columns))
        write_rows(handle, columns, rows, line_end)


def write_rows(
    handle: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], line_end: str
) -> None:
    """Write `rows` to an open table.

    Raises:
        ValueError: a row has something else than `columns`.
    """
    writer = csv.DictWriter(handle, columns, lineterminator=line_end)
    writer.writerows({key: to_cell(value) for key, value in row.items()} for row in rows)


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


@contextmanager
def locked(file: Path, alone: bool = True) -> Iterator[bool]:
    """Whether this process now has the lock `file`, `alone` or with others that only look; nobody is waited for.

    It has it for as long as the context lasts, or the process. A file that is missing is made by who wants it alone;
    for others it is one that nobody has.

    Raises:
        OSError: it cannot be opened.
    """
    import fcntl

    try:
        lock = file.open("a" if alone else "r")
    except FileNotFoundError:
        if alone:
            raise
        yield True
        return
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

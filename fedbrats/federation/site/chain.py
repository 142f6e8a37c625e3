"""An append-only file of JSON lines, each with the hash of the line before it.

Beside the log lies its head, a small file that says how many lines and bytes were durable and how the last of them is
hashed, so that a log which was cut at the end is noticed. A line is on the disk before `append` returns. What a crash
left of a line stays where it is: the next line says that it was not finished, and the chain goes on over both.

Who can write here could make all of it anew, and no program can tell; whoever keeps the number of lines and the last
hash elsewhere (`verify` gives them) can.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedbrats.config.site_file import SiteFile
from fedbrats.files import PRIVATE_FILE, private_folder, read_json, write_json

try:
    import fcntl
except ImportError:  # not POSIX: a log can be read but not written
    fcntl = None  # type: ignore[assignment]

EGRESS = "egress.jsonl"  # in the storage of a site
FORMAT = 1  # of the log, in its first line
LOCK_SECONDS = 30.0  # that another process may take for its line
UNFINISHED = "the line before was not finished when its process ended; nothing of its message left"


class ChainError(RuntimeError):
    """A log that cannot be written, or that is no longer what was written; nothing may leave."""


@dataclass(frozen=True)
class Head:
    """How far a log goes: lines and bytes that were durable, the hash of the last line, epsilon so far by study."""

    lines: int = 0
    bytes: int = 0
    sha256: str = ""
    epsilon: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: lines of the log, the hash of the last one, and the first line that is wrong, 0 for none."""

    lines: int
    sha256: str
    wrong: int = 0
    problem: str = ""


def egress_file(site: SiteFile) -> Path:
    """The log of what left a site."""
    return Path(site.storage) / EGRESS


def now() -> str:
    """The time as the log has it, UTC to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def append(file: Path, site: str, line: Mapping[str, Any]) -> None:
    """Add `line` durably; its number, its time and the hash of the line before are put to it.

    A line without an epsilon gets the one that its study had last.

    Args:
        file: of the log, made with its first line where there is none; nobody else may read it.
        site: whose log it is, for the first line.
        line: JSON can hold it; has `study` and `epsilon`.

    Raises:
        ChainError: it cannot be written, another process holds it, or it is not what was written before.
    """
    try:
        with _locked(file) as handle:
            head = _caught_up(handle, file, _read_head(file))
            if not head.lines:
                head = _write(handle, head, {"egress": FORMAT, "site": site})
            study = str(line["study"])
            epsilon = head.epsilon.get(study) if line["epsilon"] is None else line["epsilon"]
            head = _write(handle, head, {**line, "epsilon": epsilon})
            write_json(_head_file(file), asdict(head), private=True)
    except (OSError, ValueError) as error:
        raise ChainError(f"{file}: cannot be written ({error})") from error


def read(file: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every whole line of the log from byte `start` on with the byte where it ends; unfinished ones are passed over.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as handle:
        handle.seek(start)
        for raw in handle:
            start += len(raw)
            if raw.endswith(b"\n") and (line := _parsed(raw[:-1])) is not None:
                yield start, line


def verify(file: Path) -> Verdict:
    """Follow the chain from its first line to its last.

    A log that is not there is whole, where no head says that there was one.

    Raises:
        OSError: it cannot be read.
        ValueError: its head cannot be read.
    """
    head, found, whole = _read_head(file), Head(), True
    if not file.is_file():
        return Verdict(0, "", *((1, f"is not there, and {head.lines} were written") if head.lines else ()))
    with file.open("rb") as handle:
        for raw in handle:
            if not raw.endswith(b"\n"):
                break  # of a crash, or still being written; what the head knows of is checked below
            line = _parsed(raw[:-1])
            problem, whole = _wrong(line, found, whole), line is not None
            found = _over(found, raw[:-1], line)
            same = (found.bytes, found.sha256) == (head.bytes, head.sha256)
            if found.lines == head.lines and not same:
                problem = problem or f"is not the line that was written ({_head_file(file).name})"
            if problem:
                return Verdict(found.lines, found.sha256, found.lines, problem)
    if found.lines and not _head_file(file).is_file():
        return Verdict(
            found.lines, found.sha256, found.lines, f"is without {_head_file(file).name}, which is missing"
        )
    if found.lines < head.lines:
        what = f"is the last one, but {head.lines} were written: the log was cut"
        return Verdict(found.lines, found.sha256, max(1, found.lines), what)
    return Verdict(found.lines, found.sha256)


def _wrong(line: dict[str, Any] | None, before: Head, whole: bool) -> str:
    """What is wrong with a line that follows `before`, "" for nothing; `whole`: the line before is no torn one."""
    if line is None:
        return "" if before.lines else "is not the first line of a log"
    if line.get("previous") != before.sha256:
        return "does not follow the line before it: one of them was changed, put in, taken out or moved"
    if line.get("line") != before.lines + 1:
        return f"says that it is line {line.get('line')}"
    if (before.lines == 0) != ("egress" in line):
        return "begins another log" if before.lines else "is not the first line of a log"
    if not whole and line.get("note") != UNFINISHED:
        return "follows a torn line and does not say so"
    return ""


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and "previous" in line else None


def _over(head: Head, raw: bytes, line: Mapping[str, Any] | None) -> Head:
    """The head after one more line."""
    epsilon = dict(head.epsilon)
    if line is not None and line.get("epsilon") is not None:
        epsilon[str(line["study"])] = line["epsilon"]
    return Head(head.lines + 1, head.bytes + len(raw) + 1, hashlib.sha256(raw).hexdigest(), epsilon)


def _write(handle: int, head: Head, content: Mapping[str, Any]) -> Head:
    line = {"line": head.lines + 1, "time": now(), "previous": head.sha256, **content}
    raw = json.dumps(line, allow_nan=False).encode()
    _write_all(handle, raw + b"\n")
    os.fsync(handle)
    return _over(head, raw, line)


def _write_all(handle: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]


def _caught_up(handle: int, file: Path, head: Head) -> Head:
    """The head after what stands in the log behind it, which a process wrote that then ended."""
    size = os.fstat(handle).st_size
    if size < head.bytes:
        raise ChainError(
            f"{file}: {size} bytes are left of {head.bytes} that were written ({_head_file(file).name}): it was cut, "
            "or replaced by an old copy. Restore it; or move both files to where they are kept, and a new log begins."
        )
    tail, torn = os.pread(handle, size - head.bytes, head.bytes), False
    if not head.lines and b"\n" not in tail:
        os.ftruncate(handle, 0)  # a first line that was not finished, before anything left
        return head
    if tail and not tail.endswith(b"\n"):
        _write_all(handle, b"\n")
        tail += b"\n"
    for raw in tail.split(b"\n")[:-1]:
        line = _parsed(raw)
        if problem := _wrong(line, head, not torn):
            raise ChainError(
                f"{file}: line {head.lines + 1} {problem}. Look at `fedbrats site log --verify`."
            )
        torn = line is None
        head = _over(head, raw, line)
    return _write(handle, head, {"note": UNFINISHED}) if torn else head


def _read_head(file: Path) -> Head:
    """The head of a log, an empty one where there is none. Raises ValueError: it cannot be read."""
    head = _head_file(file)
    if not head.is_file():
        return Head()
    try:
        return replace(Head(), **read_json(head))
    except TypeError as error:
        raise ValueError(f"{head}: not the head of a log ({error})") from error


def _head_file(file: Path) -> Path:
    return file.with_suffix(".head")


@contextmanager
def _locked(file: Path) -> Iterator[int]:
    if fcntl is None:
        raise ChainError(f"{file}: this system has no file locks, so a log cannot be kept safely.")
    if not file.parent.is_dir():
        private_folder(file.parent)
    fresh = not file.exists()
    handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, PRIVATE_FILE)
    try:
        os.fchmod(handle, PRIVATE_FILE)
        _lock(handle, file)
        if fresh:
            _folder_to_disk(file.parent)
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, file: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise ChainError(f"{file}: another process has held it for {LOCK_SECONDS:g} s") from error
            time.sleep(0.02)


def _folder_to_disk(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

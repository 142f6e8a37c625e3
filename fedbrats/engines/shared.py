"""Arrays in anonymous shared memory, and messages that carry a note of where their arrays are.

The memory is a file without a name (`memfd` on Linux, an unlinked temporary file elsewhere) that is written
and read with `pwrite` and `pread`. So there is nothing to clean up after a crash, the 64 MB of a
container's /dev/shm do not matter, a full memory is an OSError rather than a dead process, and what is read
is plain `bytes` with no lifetime to care about.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

from flwr.app import Array, ArrayRecord, Error, Message, RecordDict


class ArrayNote(NamedTuple):
    """One Array of a record, without its data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stype: str
    size: int  # bytes


@dataclass(frozen=True)
class Placed:
    """Where an ArrayRecord lies in an area: its arrays one after another from `offset` (bytes)."""

    serial: int  # never used twice in one area
    offset: int
    arrays: tuple[ArrayNote, ...]

    @property
    def end(self) -> int:
        return self.offset + sum(note.size for note in self.arrays)


class SharedArea:
    """A piece of shared memory that grows as needed and hands out room for ArrayRecords.

    Can be given to a process while that is being spawned; both sides then see the same memory. Only one of
    them may place records; the other one fetches them.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = _anonymous_file() if fd is None else fd
        self._used: dict[int, Placed] = {}
        self._serials = itertools.count()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self._fd),)

    def place(self, record: ArrayRecord) -> Placed:
        """Copy a record into the first gap that holds it. Raises OSError if there is no memory left."""
        views = [memoryview(array.data).cast("B") for array in record.values()]
        notes = tuple(
            ArrayNote(name, array.dtype, tuple(array.shape), array.stype, len(view))
            for (name, array), view in zip(record.items(), views)
        )
        size, offset = sum(map(len, views)), 0
        for other in sorted(self._used.values(), key=lambda other: other.offset):
            if offset + size <= other.offset:
                break
            offset = max(offset, other.end)
        placed = Placed(next(self._serials), offset, notes)
        for view in views:
            while len(view):
                written = os.pwrite(self._fd, view, offset)  # at most 2 GB at a time
                offset, view = offset + written, view[written:]
        self._used[placed.serial] = placed
        return placed

    def fetch(self, placed: Placed) -> ArrayRecord:
        """A copy of a record as it was placed."""
        record, offset = ArrayRecord(), placed.offset
        for note in placed.arrays:
            data = os.pread(self._fd, note.size, offset)
            while len(data) < note.size:
                more = os.pread(self._fd, note.size - len(data), offset + len(data))
                if not more:
                    raise OSError(f"array {note.name} is not complete in shared memory")
                data += more
            record[note.name] = Array(note.dtype, note.shape, note.stype, data)
            offset += note.size
        return record

    def free(self, placed: Placed) -> None:
        """Give the room of a record to the next one."""
        self._used.pop(placed.serial, None)

    def clear(self) -> None:
        """Free every record."""
        self._used.clear()

    def close(self) -> None:
        os.close(self._fd)


def _received(duplicate: Any) -> SharedArea:
    return SharedArea(duplicate.detach())


def _anonymous_file() -> int:
    try:
        return os.memfd_create("fedbrats")
    except (AttributeError, OSError):  # not Linux, or forbidden
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


@dataclass(frozen=True)
class Envelope:
    """A Message for the pipe: small records as they are, ArrayRecords as the place they lie at."""

    metadata: Any
    error: Error | None
    records: dict[str, Any] | None

    def open(self, fetch: Callable[[Placed], ArrayRecord]) -> Message:
        """The Message again, its arrays read by `fetch`."""
        if self.error is not None:
            return Message(self.error, metadata=self.metadata)
        records = self.records or {}
        content = RecordDict(
            {name: fetch(part) if isinstance(part, Placed) else part for name, part in records.items()}
        )
        return Message(content, metadata=self.metadata)


def seal(message: Message, place: Callable[[ArrayRecord], Placed]) -> Envelope:
    """Put a message's arrays into shared memory by `place` and note where they are."""
    if message.has_error():
        return Envelope(message.metadata, message.error, None)
    records = {
        name: place(record) if isinstance(record, ArrayRecord) else record
        for name, record in message.content.items()
    }
    return Envelope(message.metadata, None, records)

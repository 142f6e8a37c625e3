"""How soon Flower asks again and how much its clients read at once, for which it has no options."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

PIECE = 2**20  # bytes of an answer that are worked on at once
RECORD = 2**14  # bytes that TLS hands out at once, whatever is asked for
FIRST = (
    0.05  # seconds after which an object that is not there yet is asked for again; then twice as long, ...
)


def ask_again_sooner() -> None:
    """Let this process ask again for an object after `FIRST` seconds and not after one.

    A message is handed out when it is known and its objects are still on their way, so that nearly every one is asked
    for too early at first.
    """
    from flwr.supercore.inflatable import inflatable_utils as module

    # The second hands the first a default of its own.
    for pull in (module.pull_objects, module.pull_and_inflate_object_from_tree):
        pull.__kwdefaults__["initial_backoff"] = FIRST


def read_in_large_pieces() -> None:
    """Let HTTP clients of this process take `PIECE` bytes of an answer at once, as each piece goes through all layers.

    httpcore takes 64 kB, of which TLS gives it `RECORD`. Here what has come already is taken; nothing is waited for.
    """
    from httpcore._backends.sync import SyncStream
    from httpcore._sync.http11 import HTTP11Connection

    read = SyncStream.read

    def filled(self: Any, max_bytes: int, timeout: float | None = None) -> bytes:
        parts = [read(self, max_bytes, timeout)]
        if not isinstance(self._sock, ssl.SSLSocket) or len(parts[0]) < RECORD:
            return parts[0]
        left = max_bytes - len(parts[0])
        self._sock.settimeout(0)
        with suppress(OSError):  # the rest is not there yet, or never will be, as the next read tells
            while left and (more := self._sock.recv(left)):
                parts.append(more)
                left -= len(more)
        return b"".join(parts)

    SyncStream.read = filled  # type: ignore[method-assign]
    HTTP11Connection.READ_NUM_BYTES = PIECE


def write_without_copies() -> None:
    """Let HTTP clients of this process keep what they send where it is.

    A socket takes a part of a body at a time, and httpcore copies all the rest after each of them.
    """
    from httpcore._backends.sync import SyncStream

    write = SyncStream.write

    def written(self: Any, buffer: bytes, timeout: float | None = None) -> None:
        write(self, memoryview(buffer), timeout)  # type: ignore[arg-type]

    SyncStream.write = written  # type: ignore[method-assign]

"""A worker process: builds the ClientApp once and answers for its sites until it is told to stop.

The pipe to the parent carries, towards the worker, `Work` (a message), the number of a slot that may be
used again, or None (stop); and towards the parent `READY`, a `Failed` start, or a `Reply`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedbrats.engines.memory import keep_freed_memory
from fedbrats.engines.shared import Envelope, Placed, SharedArea, seal
from fedbrats.engines.sites import (
    CLIENT_APP_CRASHED,
    answer,
    arrays_in,
    error_reply,
    new_context,
    set_identity,
)
from fedbrats.federation import flower_env

READY = "ready"


@dataclass(frozen=True)
class Settings:
    """What every worker of a run needs to start."""

    make_client_app: bytes  # pickled callable; unpickled where a failure can be reported
    threads: int
    device: str
    memory_fraction: float | None


@dataclass(frozen=True)
class Work:
    """One message for a site, and the serials of the broadcast records that later messages use again."""

    envelope: Envelope
    keep: frozenset[int]


@dataclass(frozen=True)
class Reply:
    """A site's answer; its arrays, if it has any, lie in the slot of that number."""

    envelope: Envelope
    slot: int | None


@dataclass(frozen=True)
class Failed:
    """The worker could not build the ClientApp."""

    trace: str


def serve(
    connection: Connection,
    broadcast: SharedArea,
    slots: Sequence[SharedArea],
    node_configs: Mapping[int, Mapping[str, Any]],
    settings: Settings,
    environment: Mapping[str, str],
) -> None:
    """Run a worker; the target of its process, with the environment variables it shall have."""
    os.environ.update(environment)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    inbox: SimpleQueue[Work | None] = SimpleQueue()
    free: SimpleQueue[int] = SimpleQueue()
    for number in range(len(slots)):
        free.put(number)
    threading.Thread(target=_read, args=(connection, inbox, free), daemon=True).start()
    flower_env.quiet()
    set_identity(next(iter(node_configs)))
    try:
        app = pickle.loads(settings.make_client_app)()
        limit_torch(settings.threads, settings.device, settings.memory_fraction)
    except Exception:
        connection.send(Failed(traceback.format_exc()))
        return
    connection.send(READY)
    worker = _Worker(app, broadcast, slots, node_configs, free)
    while (work := inbox.get()) is not None:
        connection.send(worker.do(work))
        del work  # the next message may be long in coming


def _read(connection: Connection, inbox: SimpleQueue[Work | None], free: SimpleQueue[int]) -> None:
    """Take everything from the pipe at once, so that the parent never waits for a busy worker."""
    try:
        while True:
            item = connection.recv()
            if isinstance(item, int):
                free.put(item)
            else:
                inbox.put(item)
    except (EOFError, OSError):
        os._exit(1)  # the parent is gone: at once, so that no orphan races with a resumed run


def limit_torch(threads: int, device: str, memory_fraction: float | None) -> None:
    """Set torch's threads, and the share of the GPU this process may use.

    A process that has not imported torch by now follows OMP_NUM_THREADS, which `serve` has set.
    """
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
        with contextlib.suppress(RuntimeError):  # too late once inter-op work has begun
            torch.set_num_interop_threads(1)
    if device.startswith("cuda") and memory_fraction is not None:
        import torch

        index = int(device.partition(":")[2] or 0)
        torch.cuda.set_per_process_memory_fraction(memory_fraction, index)


class _Worker:
    """The ClientApp, the sites' Contexts and the shared memory of one worker process."""

    def __init__(
        self,
        app: ClientApp,
        broadcast: SharedArea,
        slots: Sequence[SharedArea],
        node_configs: Mapping[int, Mapping[str, Any]],
        free: SimpleQueue[int],
    ) -> None:
        self._app, self._broadcast, self._slots, self._free = app, broadcast, slots, free
        self._contexts: dict[int, Context] = {
            node: new_context(node, config) for node, config in node_configs.items()
        }
        self._records: dict[int, ArrayRecord] = {}

    def do(self, work: Work) -> Reply:
        """Let the site work and put its reply where the parent finds it."""
        message = work.envelope.open(self._fetch)
        self._records = {serial: record for serial, record in self._records.items() if serial in work.keep}
        reply = answer(self._app, message, self._contexts[message.metadata.dst_node_id])
        try:
            return self._post(reply)
        except OSError as error:
            reason = f"no shared memory for the reply: {error}"
            return Reply(seal(error_reply(message, CLIENT_APP_CRASHED, reason), _refuse), None)

    def _fetch(self, placed: Placed) -> ArrayRecord:
        """One object for all messages of a push that carry the record."""
        if placed.serial not in self._records:
            self._records[placed.serial] = self._broadcast.fetch(placed)
        return self._records[placed.serial]

    def _post(self, reply: Message) -> Reply:
        if reply.has_error() or not arrays_in(reply.content):
            return Reply(seal(reply, _refuse), None)
        number = self._free.get()  # waits until the parent has used an earlier reply
        slot = self._slots[number]
        slot.clear()
        try:
            return Reply(seal(reply, slot.place), number)
        except OSError:
            self._free.put(number)
            raise


def _refuse(record: ArrayRecord) -> Placed:
    raise AssertionError("a reply without arrays has nothing to place")

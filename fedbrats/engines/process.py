"""The parent's side of a worker process: how it is started, fed and ended, and what it has been given."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Message

from fedbrats.devices import left_to_parent
from fedbrats.engines.shared import Envelope, Placed, SharedArea
from fedbrats.engines.warm import FORKS, worker_context
from fedbrats.engines.worker import Settings, Work, serve

SLOTS = 2  # replies with arrays that a worker may be ahead of the server


@dataclass(eq=False)
class SharedRecord:
    """An ArrayRecord of a push, and how many unanswered messages carry it."""

    record: ArrayRecord
    users: int = 0
    placed: Placed | None = None


@dataclass(eq=False)
class Task:
    """A message without an answer."""

    message: Message
    worker: WorkerProcess
    records: dict[int, SharedRecord]  # by id() of the ArrayRecord
    dropped: bool = False  # superseded while the site was at work

    @property
    def id(self) -> str:
        return str(self.message.metadata.message_id)

    def place_of(self, record: ArrayRecord) -> Placed:
        placed = self.records[id(record)].placed
        assert placed is not None
        return placed

    @property
    def node(self) -> int:
        return int(self.message.metadata.dst_node_id)


class WorkerProcess:
    """The parent's view of one worker: its process, pipe and slots, and what it has been given."""

    def __init__(
        self, index: int, node_configs: Mapping[int, Mapping[str, Any]], environment: Mapping[str, str]
    ) -> None:
        self.index, self.node_configs, self.environment = index, node_configs, environment
        self.queue: deque[Task] = deque()  # not sent yet
        self.running: dict[str, Task] = {}  # sent, in this order
        self.was_ready = False
        self.process: Any = None

    @property
    def sites(self) -> str:
        return ", ".join(config["site"] for config in self.node_configs.values())

    def start(self, broadcast: SharedArea, settings: Settings) -> None:
        context = worker_context()
        self.slots = [SharedArea() for _ in range(SLOTS)]
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve,
            args=(theirs, broadcast, self.slots, self.node_configs, settings, dict(self.environment)),
            name=f"fedbrats-worker-{self.index}",
            daemon=True,
        )
        # A fork server may be importing still; it has its children never get Ctrl-C itself.
        with theirs, nullcontext() if FORKS else left_to_parent():
            self.process.start()

    def send(self, item: Work | int | None) -> None:
        with suppress(OSError):  # a dead worker is noticed by its sentinel
            self.connection.send(item)

    def stop(self, wait: float) -> int | None:
        """End the process, by force after `wait` seconds, and free all it held; returns the exit code."""
        self.process.join(wait)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        self.process.close()
        self.process = None
        self.connection.close()
        for slot in self.slots:
            slot.close()
        return code if code is None else int(code)


@dataclass(eq=False)
class Arrived:
    """A reply that has not been pulled; its arrays wait in a slot or, once loaded, in `message`."""

    node: int
    worker: WorkerProcess
    envelope: Envelope | None = None
    slot: int | None = None
    message: Message | None = None

    def load(self) -> Message:
        if self.message is None:
            assert self.envelope is not None
            self.message = self.envelope.open(self.worker.slots[self.slot or 0].fetch)
            self.release()
        return self.message

    def release(self) -> None:
        if self.slot is not None:
            self.worker.send(self.slot)
            self.slot = None


def cause_of_death(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        likely = ", most likely out of memory" if -code == signal.SIGKILL else ""
        return f"died (exit code {code}, {signal.Signals(-code).name}{likely})"
    return f"died (exit code {code})"

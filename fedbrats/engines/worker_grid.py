"""The Grid whose sites live in a few worker processes, each site in the same one for the whole run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from multiprocessing import connection
from typing import Any

from flwr.app import Message

from fedbrats.engines.grids import SiteGrid
from fedbrats.engines.process import SLOTS, Arrived, SharedRecord, Task, WorkerProcess, cause_of_death
from fedbrats.engines.shared import SharedArea, seal
from fedbrats.engines.sites import CLIENT_APP_CRASHED, arrays_in, error_reply
from fedbrats.engines.worker import READY, Failed, Reply, Settings, Work

WINDOW = 2  # messages a worker has at once: one to work on, one to go on with
PATIENCE = 0.5  # seconds that pull_messages waits at most
GRACE = 5.0  # seconds that a site gets to finish a message the server has given up on
STOP = 5.0  # seconds that an idle worker gets to leave


class WorkerError(RuntimeError):
    """A worker process that cannot start; the message holds its traceback."""


class WorkerGrid(SiteGrid):
    """Sites in spawned processes; arrays cross in shared memory, one copy per push and one slot per reply.

    A worker runs at most `SLOTS` replies ahead of the server and then waits, so that the memory in use does
    not depend on the number of sites. A worker that dies fails the open messages of its sites and is
    started again at the next push. When the server gives up on a message and pushes a new one to the same
    site, the site has `GRACE` seconds to finish the old one; then its worker is killed and started again.

    Call `close` in the end, in any case.
    """

    def __init__(
        self,
        node_configs: Mapping[int, Mapping[str, Any]],
        groups: Sequence[Sequence[int]],
        settings: Settings,
        environments: Sequence[Mapping[str, str]],
    ) -> None:
        """`groups` holds each worker's node ids, `environments` the variables to start each worker with."""
        super().__init__(node_configs)
        self._settings = settings
        self._broadcast = SharedArea()
        self._workers = [
            WorkerProcess(index, {node: node_configs[node] for node in group}, environment)
            for index, (group, environment) in enumerate(zip(groups, environments))
        ]
        self._home = {node: worker for worker in self._workers for node in worker.node_configs}
        self._tasks: dict[str, Task] = {}
        self._replies: dict[str, Arrived] = {}

    def start(self) -> None:
        """Start all workers and return before they are ready; a failed start raises at a push or pull."""
        for worker in self._workers:
            worker.start(self._broadcast, self._settings)

    def close(self, kill: bool = False) -> None:
        """End all workers, at once if asked or if a site is still at work."""
        started = [worker for worker in self._workers if worker.process is not None]
        for worker in started:
            worker.send(None)
        for worker in started:
            worker.stop(wait=0 if kill or worker.running else STOP)
        self._broadcast.close()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Give the messages to the workers of their sites, in order; returns their ids.

        Supersedes what is still open with these sites (see the class). A message's content must not be
        changed before its reply has been pulled.

        Raises:
            ValueError: a node id that is not there.
            WorkerError: a worker cannot start.
        """
        messages = self._number(messages)
        self._listen(0)
        self._supersede({message.metadata.dst_node_id for message in messages})
        records: dict[int, SharedRecord] = {}
        for message in messages:
            worker = self._home[message.metadata.dst_node_id]
            mine = {}
            for record in arrays_in(message.content):
                mine[id(record)] = records.setdefault(id(record), SharedRecord(record))
            for shared in mine.values():
                shared.users += 1
            task = Task(message, worker, mine)
            self._tasks[task.id] = task
            worker.queue.append(task)
        for worker in self._workers:
            if worker.queue and worker.process is None:
                worker.start(self._broadcast, self._settings)
            self._feed(worker)
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The asked replies that are there, in the order asked; waits up to half a second for the first.

        Raises WorkerError if a worker cannot start.
        """
        asked = list(message_ids)
        deadline = time.monotonic() + (PATIENCE if asked else 0)
        self._listen(0)
        while not any(message_id in self._replies for message_id in asked):
            self._make_way(asked)
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            self._listen(left)
        return [self._replies.pop(message_id).load() for message_id in asked if message_id in self._replies]

    def arrived(self) -> Collection[str]:
        """Ids of the messages that are answered and whose replies have not been pulled."""
        return self._replies.keys()

    def _listen(self, timeout: float) -> None:
        """Take in what the workers report, waiting at most `timeout` seconds for the first report."""
        sources: dict[Any, WorkerProcess] = {}
        for worker in self._workers:
            if worker.process is not None:
                sources |= {worker.connection: worker, worker.process.sentinel: worker}
        heard = {sources[source].index for source in connection.wait(list(sources), timeout)}
        for index in sorted(heard):
            self._hear(self._workers[index])

    def _hear(self, worker: WorkerProcess) -> None:
        alive = worker.process.is_alive()  # asked first: all that a dead worker sent is in the pipe by now
        try:
            while worker.connection.poll():
                report = worker.connection.recv()
                if isinstance(report, Failed):
                    raise WorkerError(
                        f"worker process {worker.index} ({worker.sites}) cannot start:\n{report.trace}"
                    )
                if report == READY:
                    worker.was_ready = True
                else:
                    self._take(worker, report)
        except (EOFError, OSError):
            alive = False
        if not alive:
            self._bury(worker)

    def _take(self, worker: WorkerProcess, reply: Reply) -> None:
        task = worker.running.pop(reply.envelope.metadata.reply_to_message_id)
        self._forget(task)
        arrived = Arrived(task.node, worker, reply.envelope, reply.slot)
        if task.dropped:
            arrived.release()
        else:
            self._replies[task.id] = arrived
        self._feed(worker)

    def _feed(self, worker: WorkerProcess) -> None:
        """Send the next messages, and put their arrays into shared memory where they are not yet."""
        while worker.queue and len(worker.running) < WINDOW:
            task = worker.queue.popleft()
            for shared in task.records.values():
                if shared.placed is None:
                    shared.placed = self._broadcast.place(shared.record)
            envelope = seal(task.message, task.place_of)
            later = {shared.placed for other in worker.queue for shared in other.records.values()}
            worker.running[task.id] = task
            worker.send(Work(envelope, frozenset(placed.serial for placed in later if placed is not None)))

    def _forget(self, task: Task) -> None:
        """A message is answered: free the arrays that no other message needs."""
        self._tasks.pop(task.id, None)
        for shared in task.records.values():
            shared.users -= 1
            if shared.users == 0 and shared.placed is not None:
                self._broadcast.free(shared.placed)

    def _make_way(self, asked: Sequence[str]) -> None:
        """Empty a slot of a worker that cannot reach an asked message while its replies are not pulled."""
        for worker in {self._tasks[i].worker.index for i in asked if i in self._tasks}:
            held = [a for a in self._replies.values() if a.worker.index == worker and a.slot is not None]
            if len(held) == SLOTS:
                held[0].load()

    def _bury(self, worker: WorkerProcess, why: str | None = None) -> None:
        """End a worker that is dead, or must go (`why`): error replies for all it has not answered."""
        for arrived in self._replies.values():
            if arrived.worker is worker:
                arrived.load()
        code = worker.stop(wait=1 if why is None else 0)
        why = why or cause_of_death(code)
        if not worker.was_ready:
            raise WorkerError(f"worker process {worker.index} ({worker.sites}) {why} while it was starting")
        tasks = [*worker.running.values(), *worker.queue]
        worker.running, worker.queue = {}, deque()
        for task in tasks:
            self._forget(task)
            if not task.dropped:
                culprit = self._node_configs[tasks[0].node]["site"]
                after = "" if task is tasks[0] else f" at work on site {culprit}, before this site's turn"
                reply = error_reply(task.message, CLIENT_APP_CRASHED, f"worker process {why}{after}")
                self._replies[task.id] = Arrived(task.node, worker, message=reply)

    def _supersede(self, nodes: set[int]) -> None:
        """Drop what is open with these sites; see the class for sites that are still at work."""
        for message_id, arrived in list(self._replies.items()):
            if arrived.node in nodes:
                arrived.release()
                del self._replies[message_id]
        for worker in self._workers:
            for task in [task for task in worker.queue if task.node in nodes]:
                worker.queue.remove(task)
                self._forget(task)
            for task in worker.running.values():
                task.dropped |= task.node in nodes
        deadline = time.monotonic() + GRACE
        while late := [
            w for w in self._workers if w.was_ready and any(t.dropped for t in w.running.values())
        ]:
            left = deadline - time.monotonic()
            if left > 0:
                self._listen(left)
                continue
            for worker in late:
                self._bury(worker, "was killed because a site did not finish in time")

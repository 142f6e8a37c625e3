"""Flower's own programs, each in a process of its own, with what a deployment needs set otherwise.

`python -m fedbrats.engines.superlink.flower supernode --superlink ...` is `flower-supernode --superlink ...`, but

- a SuperNode asks for work every `POLL` seconds: `flwr.supernode.start_client_internal` sleeps 3 s when there is none
  and 0.5 s while a reply is not ready, and has no option for it. The module is given a clock that sleeps shorter;
- a SuperNode gives up a message whose run ends while it is fetched (`give_up_ended_runs`), and answers one whose
  task failed (`answer_failed_tasks`);
- whatever runs ends with the process that started it (`end_with_parent`), or it would go on with nobody to stop it;
- of the requests that are served, only refused ones are logged;
- a SuperExec looks for tasks every `POLL` seconds, by Flower's own `FLWR_SUPEREXEC_TASK_POLL_INTERVAL`, and starts
  nothing but what is installed here (`executor.py`), whatever app a run brings along.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

POLL = 0.2  # seconds
POLL_OF_SUPEREXEC = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"


def main(arguments: list[str]) -> None:
    """Run the program that the first argument names with the others; it ends the process itself."""
    role, *rest = arguments
    sys.argv = [f"flower-{role}", *rest]
    logging.getLogger("uvicorn.access").addFilter(_refused)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    if role == "superlink":
        from flwr.superlink.cli import flower_superlink

        flower_superlink()
    elif role == "supernode":
        from flwr.supernode.cli import flower_supernode

        ask_more_often()
        give_up_ended_runs()
        answer_failed_tasks()
        flower_supernode()
    elif role == "superexec":
        _superexec(rest)
    else:
        raise SystemExit(f"no program {role!r}; there are superlink, supernode and superexec")


def _refused(record: logging.LogRecord) -> bool:
    """Of the requests, which come several times a second, those are logged that were refused."""
    return not (
        isinstance(record.args, tuple) and record.args and isinstance(status := record.args[-1], int)
    ) or (status >= 400)


def end_with_parent(parent: int) -> None:
    """Have this process end, as when it is told to, once its parent is another one than `parent`."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)


def ask_more_often() -> None:
    """Let the SuperNode of this process sleep `POLL` seconds at most between two questions for work."""
    from flwr.supernode import start_client_internal as module

    module.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, POLL)))


def give_up_ended_runs() -> None:
    """Let the SuperNode of this process give up a message whose run ends while it is fetched, as any it cannot fetch.

    Flower makes a task for a message before it fetches the content, and takes it back after an `Exception`. That a run
    is over is none, but a `BaseException`: the task stays, and whoever is given it waits for the content for ever.
    """
    from flwr.supercore.run import RunNotRunningException
    from flwr.supernode import start_client_internal as module

    fetch = module._pull_and_store_message

    def failing(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any) -> Any:
            try:
                return ask(*arguments)
            except RunNotRunningException as error:
                raise RuntimeError("its run is over") from error

        return asked

    def fetched(**given: Any) -> int | None:
        asks = ("pull_object", "confirm_message_received")
        return fetch(**{**given, **{name: failing(given[name]) for name in asks}})

    module._pull_and_store_message = fetched


def answer_failed_tasks() -> None:
    """Let the SuperNode of this process answer a message whose task failed with an error, at once.

    Flower does so only where the task showed no sign of life for a minute after it had fetched its message. Where it
    failed before, or failed by what was said of it, the SuperNode would wait for the reply for ever.
    """
    from flwr.common.constant import SubStatus
    from flwr.supercore.constant import TaskType
    from flwr.supernode.nodestate.in_memory_nodestate import CLIENT_APP_CRASHED_ERROR, InMemoryNodeState

    finish, reply = InMemoryNodeState.finish_task, InMemoryNodeState._store_error_replies

    def finish_task(self: Any, task_id: int, sub_status: str, details: str) -> bool:
        finished = finish(self, task_id, sub_status, details)
        if finished and sub_status == SubStatus.FAILED:
            runs = {t.run_id for t in self.get_tasks(task_ids=[task_id]) if t.type == TaskType.CLIENT_APP}
            self._store_error_replies(runs, CLIENT_APP_CRASHED_ERROR)
        return finished

    def store_error_replies(self: Any, run_ids: set[int], error: Any) -> None:
        with self.lock_msg_store:
            for entry in self.msg_store.values():
                about = entry.message.metadata
                entry.is_retrieved |= about.run_id in run_ids and not about.reply_to_message_id
        reply(self, run_ids, error)

    InMemoryNodeState.finish_task = finish_task
    InMemoryNodeState._store_error_replies = store_error_replies


def _superexec(rest: list[str]) -> None:
    """`superexec TASK PROGRAM KIND ...`: tasks of the type TASK are done by `python -m PROGRAM`, see `Executor`."""
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec import run_superexec as module

    from fedbrats.engines.superlink.executor import Executor

    task, program, kind, *options = rest
    executor = Executor(task, program.split(), resident=kind == "resident")
    module.get_executor = lambda *ignored, **ignored_too: executor
    os.environ.setdefault(POLL_OF_SUPEREXEC, str(POLL))
    sys.argv = ["flower-superexec", *options]
    flower_superexec()


if __name__ == "__main__":
    main(sys.argv[1:])

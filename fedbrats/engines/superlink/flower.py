"""Flower's own programs, each in a process of its own, with what a deployment needs set otherwise.

`python -m fedbrats.engines.superlink.flower supernode --superlink ...` is `flower-supernode --superlink ...`, but

- a SuperNode asks for work every `POLL` seconds: `flwr.supernode.start_client_internal` sleeps 3 s when there is none
  and 0.5 s while a reply is not ready, and has no option for it. The module is given a clock that sleeps shorter;
- a SuperNode gives up a message whose run ends while it is fetched (`give_up_ended_runs`);
- of the requests that are served, only refused ones are logged;
- a SuperExec looks for tasks every `POLL` seconds, by Flower's own `FLWR_SUPEREXEC_TASK_POLL_INTERVAL`, and starts
  nothing but what is installed here (`executor.py`), whatever app a run brings along.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from fedbrats.engines.superlink.executor import Executor

POLL = 0.2  # seconds
POLL_OF_SUPEREXEC = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"


def main(arguments: list[str]) -> None:
    """Run the program that the first argument names with the others; it ends the process itself."""
    role, *rest = arguments
    sys.argv = [f"flower-{role}", *rest]
    logging.getLogger("uvicorn.access").addFilter(_refused)
    if role == "superlink":
        from flwr.superlink.cli import flower_superlink

        flower_superlink()
    elif role == "supernode":
        from flwr.supernode.cli import flower_supernode

        ask_more_often()
        give_up_ended_runs()
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


def _superexec(rest: list[str]) -> None:
    """`superexec TASK PROGRAM KIND ...`: tasks of the type TASK are done by `python -m PROGRAM`, see `Executor`."""
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec import run_superexec as module

    task, program, kind, *options = rest
    executor = Executor(task, program.split(), resident=kind == "resident")
    module.get_executor = lambda *ignored, **ignored_too: executor
    os.environ.setdefault(POLL_OF_SUPEREXEC, str(POLL))
    sys.argv = ["flower-superexec", *options]
    flower_superexec()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Flower's own programs, each in a process of its own, with what a deployment needs set otherwise.

`python -m fedbrats.engines.superlink.flower supernode --superlink ...` is `flower-supernode --superlink ...`, but

- a SuperNode asks more often, hands on what it has at once and answers whatever it was asked (`supernode.py`);
- a SuperLink hands a question out again whose way to its site was cut (`superlink.py`), and stores of a reply only so
  much as a study can need (`bounds.py`);
- bodies of requests go through Flower's HTTP layers as a whole (`bodies.py`), and answers are read in larger pieces
  (`pace.py`);
- whatever runs ends with the process that started it (`end_with_parent`), or it would go on with nobody to stop it;
- what was imported is no longer searched for garbage (`gc.freeze`), which took a fiftieth of a SuperLink's time;
- of the requests that are served, only refused ones are logged;
- a SuperExec looks for tasks every `POLL` seconds (at the server `POLL_FOR_STUDIES`), by Flower's own
  `FLWR_SUPEREXEC_TASK_POLL_INTERVAL`, and starts nothing but what is installed here (`executor.py`), whatever app a run
  brings along.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time

from fedbrats.engines.superlink import bodies, pace

POLL = 0.2  # seconds; a site has a SuperNode for itself
POLL_FOR_STUDIES = 1.0  # seconds; there is one task for a whole study
POLL_OF_SUPEREXEC = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"


def main(arguments: list[str]) -> None:
    """Run the program that the first argument names with the others; it ends the process itself."""
    role, *rest = arguments
    sys.argv = [f"flower-{role}", *rest]
    logging.getLogger("uvicorn.access").addFilter(_refused)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    pace.ask_again_sooner()
    pace.read_in_large_pieces()
    pace.write_without_copies()
    bodies.take_whole_bodies()
    if role == "superlink":
        from flwr.superlink.cli import flower_superlink
        from flwr.superlink.servicer.fleet import fleet_handlers
        from flwr.superlink.servicer.runtime import runtime_handlers

        from fedbrats.engines.superlink import bounds, copies, superlink

        copies.join_when_sent(fleet_handlers, "PullObjectResponse")
        copies.join_when_sent(runtime_handlers, "PullObjectResponse")
        superlink.hand_out_again()
        bounds.bound_replies()
        gc.freeze()
        flower_superlink()
    elif role == "supernode":
        from flwr.supercore.inflatable import inflatable_protobuf_utils
        from flwr.supernode.cli import flower_supernode
        from flwr.supernode.servicer.runtime import runtime_handlers as own_handlers

        from fedbrats.engines.superlink import copies, supernode

        copies.join_when_sent(inflatable_protobuf_utils, "PushObjectRequest")
        copies.join_when_sent(own_handlers, "PullObjectResponse")
        supernode.ask_more_often()
        supernode.answer_what_was_taken()
        supernode.hand_on_at_once()  # around it: what cannot be stored is answered, too
        supernode.answer_failed_tasks()
        supernode.give_up_half_replies()
        gc.freeze()
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


def _superexec(rest: list[str]) -> None:
    """`superexec TASK PROGRAM KIND ...`: tasks of the type TASK are done by `python -m PROGRAM`, see `Executor`."""
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec import run_superexec as module

    from fedbrats.engines.superlink.executor import Executor

    task, program, kind, *options = rest
    executor = Executor(task, program.split(), resident=kind == "resident")
    module.get_executor = lambda *ignored, **ignored_too: executor
    os.environ.setdefault(POLL_OF_SUPEREXEC, str(POLL if executor.resident else POLL_FOR_STUDIES))
    sys.argv = ["flower-superexec", *options]
    flower_superexec()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Worker processes that start at once: a fork server imports torch and MONAI while the main process does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from fedbrats.devices import left_to_parent

FORKS = sys.platform == "linux"  # elsewhere forking after such imports is not safe
MODULES = ["fedbrats.federation.site.app", "torch._dynamo"]  # which every optimizer of torch imports


def worker_context() -> Any:
    """How worker processes are started: forked from a clean server process on Linux, spawned elsewhere."""
    return multiprocessing.get_context("forkserver" if FORKS else "spawn")


def own_start_method() -> None:
    """In a process of another library (joblib's loky) go back to how Python starts processes, or none could be."""
    if multiprocessing.get_start_method(allow_none=True) not in (
        None,
        *multiprocessing.get_all_start_methods(),
    ):
        multiprocessing.set_start_method("spawn", force=True)


def cool_down() -> None:
    """End the server process, which else goes on importing when nobody is left to start a worker for."""
    if not FORKS:
        return
    from multiprocessing import forkserver

    server = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    if server is not None:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)


def warm_up() -> None:
    """Start the server process early and have it import what sites need; returns at once and may be called again.

    Its numeric libraries get one thread each, because threads that exist before a fork are lost in it; torch's own
    number of threads is set in each worker.
    """
    if not FORKS:
        return
    from multiprocessing import forkserver

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload(MODULES)
        with left_to_parent():
            forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

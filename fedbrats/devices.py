"""Which device computes, how many cores there are, and to whom Ctrl-C goes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

GPUS = "CUDA_VISIBLE_DEVICES"

if TYPE_CHECKING:  # its import takes seconds, and a process that only writes a phantom needs none of it
    import torch


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes a GPU where there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    CUDA is not begun with, so that the variable can still be changed (`torch.cuda.is_available` would).
    """
    import torch

    found = torch.cuda.device_count()
    said = os.environ.get(GPUS)
    return said.split(",")[:found] if said else [str(i) for i in range(found)]


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@contextmanager
def left_to_parent() -> Iterator[None]:
    """Processes that start inside never get Ctrl-C, from their first line on; who started them ends them.

    In these milliseconds this process does not get it either. (A blocked signal would wait instead, but multiprocessing
    unblocks it.) Nothing changes where it is called in another thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

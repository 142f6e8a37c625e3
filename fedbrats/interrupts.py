"""Ctrl-C goes to every process of a terminal; only the first one is to say something about it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit status, as a shell has it


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

"""A clock in the background: it calls again and again, whether or not anything else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Heartbeat:
    """Calls `tick` every `every` seconds from `start` to `stop`, in a thread that never keeps the process alive."""

    def __init__(self, tick: Callable[[], None], every: float) -> None:
        self._tick, self._every = tick, every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go, name="fedbrats-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; once only."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until no call is under way any more; harmless when called twice."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _go(self) -> None:
        while not self._end.wait(self._every):
            try:
                self._tick()
            except (OSError, ValueError):  # the stream is closed; the next line of the run itself will say so
                return

"""The clock in the background."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from fedbrats.commands.run.heartbeat import Heartbeat


def test_it_calls_again_and_again_until_it_is_stopped() -> None:
    calls, third = list[float](), threading.Event()

    def tick() -> None:
        calls.append(time.monotonic())
        if len(calls) == 3:
            third.set()

    began = time.monotonic()
    heartbeat = Heartbeat(tick, 0.05)
    heartbeat.start()
    assert third.wait(30)
    heartbeat.stop()
    heartbeat.stop()
    known = len(calls)
    time.sleep(0.15)
    assert len(calls) == known
    assert calls[0] - began >= 0.05


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_a_closed_stream_ends_it_without_a_word(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[object]()
    monkeypatch.setattr(threading, "excepthook", said.append)

    def tick() -> None:
        raise error

    heartbeat = Heartbeat(tick, 0.01)
    heartbeat.start()
    heartbeat._thread.join(30)
    assert not heartbeat._thread.is_alive()
    heartbeat.stop()
    assert said == []


def test_it_does_not_keep_the_process_alive() -> None:
    code = "from fedbrats.commands.run.heartbeat import Heartbeat\nHeartbeat(lambda: None, 3600).start()\n"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

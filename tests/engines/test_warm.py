"""The server process that worker processes are forked from."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedbrats.engines.warm import FORKS

WARMS = (
    "from fedbrats.engines.warm import warm_up, cool_down; from multiprocessing import forkserver; import os;"
)


def running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not FORKS, reason="no fork server")
def test_it_ends_with_who_started_it_though_it_is_importing() -> None:
    code = f"{WARMS} warm_up(); print(forkserver._forkserver._forkserver_pid, flush=True); cool_down()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    limit = time.monotonic() + 5  # its imports would take longer
    while running(int(done.stdout)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not running(int(done.stdout))


@pytest.mark.skipif(not FORKS, reason="no fork server")
def test_it_is_started_again_when_it_is_needed() -> None:
    code = (
        f"{WARMS} warm_up(); one = forkserver._forkserver._forkserver_pid; cool_down();"
        "os.waitid(os.P_PID, one, os.WEXITED | os.WNOWAIT); warm_up();"
        "print(one != forkserver._forkserver._forkserver_pid); cool_down()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True", done.stderr

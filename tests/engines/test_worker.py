"""A worker process never outlives the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest


@pytest.mark.slow
def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", f"import toy_app; toy_app.sleep_for_ever({str(tmp_path)!r})"]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    try:
        log, end = tmp_path / "pids", time.monotonic() + 60
        while not log.exists() or log.read_text().count("\n") < 2:
            assert parent.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        workers = [int(line.split()[-1]) for line in log.read_text().splitlines()]
        assert len(set(workers)) == 2
    finally:
        parent.kill()  # SIGKILL: the parent cleans up nothing
        parent.wait()
    _, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=2
    )
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]

"""GPUs of a sweep's processes; there are none here, so what is visible is said, and processes are real."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.studies import gpu_slots
from fedbrats.studies.gpu_slots import keep_gpu

KEEP = """
import sys
from pathlib import Path
import torch
torch.cuda.device_count = lambda: 2
from fedbrats.studies.gpu_slots import keep_gpu
first = keep_gpu(Path(sys.argv[1]), 2, int(sys.argv[2]))
print(first, keep_gpu(Path(sys.argv[1]), 2, int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_slots, "_process", gpu_slots._Process())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def begin(folder: Path, per_gpu: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KEEP, str(folder), str(per_gpu)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_processes_have_different_ones_keep_them_and_leave_them_when_killed(tmp_path: Path) -> None:
    one, other = begin(tmp_path), begin(tmp_path)
    third: subprocess.Popen[str] | None = None
    try:
        assert {said(one), said(other)} == {"3 3", "5 5"}
        third = begin(tmp_path)
        time.sleep(1)
        assert third.poll() is None  # it waits
        other.kill()
        assert said(third) in ("3 3", "5 5")
    finally:
        for process in (one, other, third):
            if process is not None:
                process.kill()
                process.communicate()


def test_two_share_one_where_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    one, other = begin(tmp_path, 2), begin(tmp_path, 2)
    try:
        assert said(one) == said(other) == "7 7"
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()


def test_more_jobs_than_slots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"n_jobs=5: 2 GPUs are visible, with run.jobs_per_gpu=2 for 4 jobs"
    ):
        keep_gpu(tmp_path, 5, 2)


def test_nothing_is_kept_where_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert keep_gpu(tmp_path, 8, 1) is None
    assert list(tmp_path.iterdir()) == []

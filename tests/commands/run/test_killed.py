"""Processes of a run killed while a round is under way: it goes on as if nothing had happened, or without its sites."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from fedbrats.commands.run.run import run
from tests.commands.run.test_run import results_of, rows_of
from tests.tiny import ROOT, tiny, tiny_overrides
from tests.warm_command import Started, fedbrats, started

pytestmark = pytest.mark.slow  # whole runs


def _until(text: str, rounds: Path, process: Started) -> None:
    """Wait until there is a row of `rounds.csv` that begins so."""
    deadline = time.monotonic() + 120
    while not rounds.is_file() or text not in rounds.read_text():
        assert psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE, process.wait().text
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("workers", "every"), [(2, 1), pytest.param(0, 2, marks=pytest.mark.long)])
def test_a_killed_run_resumes_to_the_same_bytes(
    cache: Path, tmp_path: Path, workers: int, every: int
) -> None:
    """SIGKILL of the real process while a round is under way, then run.resume: as if nothing had happened.

    Sites keep their optimiser and a critic here, so that their own state is part of what must survive.
    """
    more = ["rounds=5", "train.keep_optimizer=true", f"runtime.workers={workers}", "train.local_steps=6"]
    more += [f"runtime.checkpoint_every={every}", "arms=[federated,pooled]", "train.critic.weight=0.3"]
    whole = run(tiny(cache, *more), tmp_path / "whole")
    killed = tmp_path / "killed"
    overrides = [*tiny_overrides(cache, *more), f"hydra.run.dir={killed}"]
    process = started("run", *overrides, cwd=ROOT, said=tmp_path)
    _until("\n3,", killed / "rounds.csv", process)
    time.sleep(0.03)  # into the middle of round 4
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait().status == -signal.SIGKILL
    assert not (killed / "summary.json").exists()
    assert not (killed / "cases.csv").exists()
    left = [folder / ".partial-0123abcd-cut.json" for folder in (killed, killed / "sites", cache / "checks")]
    young = cache / "checks" / ".partial-4567abcd-cut.json"  # perhaps of a process that lives
    for file in (*left, young):
        file.touch()
    os.utime(left[2], (0, 0))
    resumed = fedbrats("run", f"run.resume={killed}", cwd=ROOT)
    assert resumed.status == 0, resumed.text
    assert results_of(killed) == results_of(whole)
    assert [file for file in (*left, young) if file.exists()] == [young]


def test_a_killed_worker_fails_its_sites_for_one_round_and_comes_back(cache: Path, tmp_path: Path) -> None:
    """SIGKILL of a real worker process: its sites miss a round, then go on with the state they had saved."""
    folder = tmp_path / "run"
    more = [
        "rounds=4",
        "train.keep_optimizer=true",
        "runtime.workers=2",
        "train.local_steps=40",
        "arms=[federated]",
    ]
    overrides = [*tiny_overrides(cache, *more, "strategy.quorum=0.3"), f"hydra.run.dir={folder}"]
    process = started("run", *overrides, cwd=ROOT, said=tmp_path)
    rounds = folder / "rounds.csv"
    _until("\n2,", rounds, process)
    time.sleep(0.2)  # round 3 trains for a second or more, so the worker is at work
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if p.memory_info().rss > 2e8]
    victim = min(workers, key=lambda p: -p.cpu_times().user if p.ppid() != process.pid else 0)
    victim.kill()
    ended = process.wait()
    assert ended.status == 0, ended.text
    rows = rows_of(rounds)
    failed = [row for row in rows if row["status"] != "ok" and row["phase"] in ("train", "val")]
    assert failed
    assert all("died" in row["status"] for row in failed)
    assert len({row["round"] for row in failed}) == 1
    lost = int(failed[0]["round"])
    for site in {row["site"] for row in failed}:
        trained = [
            int(r["round"])
            for r in rows
            if r["site"] == site and r["phase"] == "train" and r["status"] == "ok"
        ]
        assert trained[-1] == 4
        assert lost + 1 in trained
    assert json.loads((folder / "summary.json").read_text())["failed_replies"]

"""Sweeps in other processes, by Hydra's launchers, and the search for the best job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedbrats.config.objective import ObjectiveConfig
from fedbrats.runs.run_folder import read_run
from fedbrats.studies.objective import objective
from tests.commands.run.test_run import results_of
from tests.tiny import tiny_overrides
from tests.warm_command import Said, fedbrats

pytestmark = pytest.mark.slow  # whole runs


OTHERS = pytest.mark.skipif(
    not os.environ.get("FEDBRATS_LAUNCHERS"),
    reason="minutes of processes that import all; FEDBRATS_LAUNCHERS=1 runs it",
)


def words(cache: Path, folder: Path, *more: str) -> list[str]:
    overrides = tiny_overrides(cache, "rounds=1", "arms=[federated]", f"hydra.sweep.dir={folder}", *more)
    return ["run", "-m", *overrides]


def sweep(cache: Path, folder: Path, *more: str) -> Said:
    return fedbrats(*words(cache, folder, *more), cwd=folder.parent)


def apart(cache: Path, folder: Path, *more: str) -> Said:
    """In a process that has not been forked, as launchers start others like it."""
    command = [sys.executable, "-m", "fedbrats", *words(cache, folder, *more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=folder.parent)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def alone(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jobs one after the other in one process."""
    folder = tmp_path_factory.mktemp("alone") / "sweep"
    assert sweep(cache, folder, "seed=1,2").status == 0
    return folder


@OTHERS
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
    ],
    ids=["joblib", "submitit"],
)
def test_jobs_in_processes_of_their_own_give_the_same_bytes(
    launcher: list[str], alone: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    said = apart(cache, folder, *launcher, "seed=1,2")
    assert said.status == 0, said.err
    assert f"fedbrats: 2 jobs in {folder}: 2 finished" in said.err.splitlines()
    for name in ("seed=1", "seed=2"):
        assert results_of(folder / name)[:2] == results_of(alone / name)[:2], name


@OTHERS
def test_a_job_that_fails_in_another_process_is_listed(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    said = apart(cache, folder, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "train.batch=0,2")
    assert said.status == 2
    assert said.err.splitlines()[-2] == f"fedbrats: 2 jobs in {folder}: 1 finished, 1 failed"
    assert said.err.splitlines()[-1].startswith("fedbrats: failed: batch=0: train.batch=0: must be")


def test_a_search_goes_by_the_validation_score(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    more = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    more += ["hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=1", "partition.val=0.4"]
    said = sweep(
        cache, folder, *more, "train.optimizer.lr=interval(0.0001,0.1)", "objective.score=worst_site"
    )
    assert said.status == 0, said.err
    jobs = [job for job in folder.iterdir() if (job / "summary.json").is_file()]
    assert len(jobs) == 3
    scores = {
        job.name: objective(read_run(job), ObjectiveConfig(score="worst_site"))
        for job in jobs
        if json.loads((job / "summary.json").read_text())["status"] == "finished"
    }
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert found["best_value"] == max(scores.values())
    best = found["best_params"]["train.optimizer.lr"]
    assert any(scores[name] == max(scores.values()) for name in scores if name == f"lr={best}")


def test_a_search_without_a_score_says_what_to_set(cache: Path, tmp_path: Path) -> None:
    more = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1", "partition.val=0"]
    said = sweep(cache, tmp_path / "sweep", *more, "train.optimizer.lr=interval(0.0001,0.1)")
    assert said.status != 0
    assert "set partition.val or partition.fold" in said.text

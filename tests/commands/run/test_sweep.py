"""Sweeps that are begun, broken off and begun again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.commands.run.test_run import results_of, rows_of
from tests.tiny import tiny_overrides
from tests.warm_command import Said, fedbrats

pytestmark = pytest.mark.slow  # whole runs

JOBS = ("strategy=fedavg,fedprox", "seed=1,2")
NAMES = [
    "strategy=fedavg__seed=1",
    "strategy=fedavg__seed=2",
    "strategy=fedprox__seed=1",
    "strategy=fedprox__seed=2",
]


def sweep(cache: Path, folder: Path, *more: str) -> Said:
    overrides = tiny_overrides(
        cache, "rounds=1", "arms=[federated,local]", f"hydra.sweep.dir={folder}", *more
    )
    return fedbrats("run", "-m", *overrides, cwd=folder.parent)


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "finished"
    said = sweep(cache, folder, *JOBS)
    assert said.status == 0, said.err
    assert f"fedbrats: 4 jobs in {folder}: 4 finished" in said.err.splitlines()
    return folder


def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "sweep", copy_function=shutil.copy2))


def changed(folder: Path) -> dict[str, int]:
    """When the files of each job were last written to."""
    return {
        job.name: max(
            os.stat(file).st_mtime_ns for file in job.rglob("*") if file.is_file() and file.name != "run.log"
        )
        for job in folder.iterdir()
        if (job / "config.yaml").is_file()
    }


def test_jobs_are_named_by_what_differs(finished: Path) -> None:
    assert sorted(changed(finished)) == NAMES


def test_what_is_finished_is_not_done_again(finished: Path, cache: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    before = changed(folder)
    shutil.rmtree(folder / NAMES[2])  # as if it had never begun
    (folder / NAMES[3] / "summary.json").unlink()  # as if it had been killed at its end
    said = sweep(cache, folder, *JOBS)
    assert said.status == 0, said.err
    assert f"fedbrats: 4 jobs in {folder}: 2 finished, 2 finished before" in said.err.splitlines()
    after = changed(folder)
    assert [name for name in NAMES if after[name] != before[name]] == NAMES[2:]
    for name in NAMES:
        assert results_of(folder / name)[:2] == results_of(finished / name)[:2], name


def test_a_job_of_another_configuration_or_code_is_not_taken(
    finished: Path, cache: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path)
    before = changed(folder)
    environment = folder / NAMES[1] / "environment.json"
    environment.write_text(
        json.dumps({**json.loads(environment.read_text()), "code": "0" * 64, "commit": "abcdef0123"})
    )
    before[NAMES[1]] = changed(folder)[NAMES[1]]
    said = sweep(cache, folder, *JOBS)
    failed = (
        f"fedbrats: failed: {NAMES[1]}: {folder / NAMES[1]} was made by other code (commit abcdef012): delete"
    )
    assert [line[: len(failed)] for line in said.err.splitlines()[-1:]] == [failed]
    assert said.status == 2
    said = sweep(cache, folder, *JOBS, "run.code=any")
    assert (said.status, changed(folder)) == (0, before)
    (folder / NAMES[0] / "summary.json").unlink()  # broken off, and still somebody else's
    before[NAMES[0]] = changed(folder)[NAMES[0]]
    said = sweep(cache, folder, *JOBS, "train.batch=1")
    assert said.status == 2
    assert (
        said.err.count("holds a job of another configuration: train.batch=2, now 1.") == 4 * 2
    )  # at once and at the end
    assert changed(folder) == before
    assert not (folder / NAMES[0] / "summary.json").exists()


def test_what_a_budget_of_time_has_made_of_a_job_is_no_other_configuration(
    cache: Path, tmp_path: Path
) -> None:
    budget = ("arms=[federated]", "scenario.clock.enabled=true", "scenario.clock.budget=30,60")
    for words in ("2 finished", "2 finished before"):
        said = sweep(cache, tmp_path / "sweep", *budget)
        assert said.err.splitlines()[-1].endswith(f": {words}"), said.err


def test_a_job_that_failed_before_it_began_is_begun_anew(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    said = sweep(cache, folder, "arms=[federated]", "train.batch=0,2")
    assert said.status == 2
    assert said.err.splitlines()[-2].endswith(": 1 finished, 1 failed")
    assert said.err.splitlines()[-1].startswith("fedbrats: failed: batch=0: train.batch=0: must be")
    assert "failed" in json.loads((folder / "batch=0" / "summary.json").read_text())["status"]
    said = sweep(cache, folder, "arms=[federated]", "train.batch=0,2")
    assert said.err.splitlines()[-2].endswith(": 1 finished before, 1 failed")


def test_baselines_are_trained_once_and_are_those_of_a_run_alone(
    finished: Path, cache: Path, tmp_path: Path
) -> None:
    alone = sweep(cache, tmp_path / "alone", "strategy=fedprox", "seed=1")
    assert alone.status == 0, alone.err
    (job,) = changed(tmp_path / "alone")
    one, other = tmp_path / "alone" / job, finished / NAMES[2]
    told = json.loads((other / "summary.json").read_text())
    assert told["baselines"] == {"run": NAMES[0], "arms": ["local"]}
    assert "baselines" not in json.loads((one / "summary.json").read_text())
    for name in ("cases.csv", "steps.csv", "uncertainty.csv", "reliability.csv", "postprocess.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    untimed = [c for c in rows_of(one / "rounds.csv")[0] if c != "seconds"]
    table = [sorted([row[c] for c in untimed] for row in rows_of(run / "rounds.csv")) for run in (one, other)]
    assert table[0] == table[1]
    trained = {file.stem for file in (other / "checkpoints").rglob("*.safetensors")}
    assert trained == {"federated"}


def test_baselines_of_another_run_are_refused_by_what_differs(
    finished: Path, cache: Path, tmp_path: Path
) -> None:
    for more, said in (
        (["seed=2"], "it has another seed"),
        (["seed=1", "arms=[federated,pooled]"], "it has no pooled"),
        (["seed=1", "arms=[federated]"], "nothing to take over"),
        (["seed=1", "partition.seed=3"], "it has another partition.seed"),
    ):
        overrides = tiny_overrides(cache, "rounds=1", "arms=[federated,local]", *more)
        where = [f"run.baselines={finished / NAMES[0]}", f"hydra.run.dir={tmp_path / more[-1]}"]
        found = fedbrats("run", *overrides, *where, cwd=tmp_path)
        assert found.status == 2
        assert said in found.text, found.err

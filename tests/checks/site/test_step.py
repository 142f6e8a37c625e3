"""The training step of preflight: really taken, on a real case, in a process that may die."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbrats.checks.site import step
from fedbrats.checks.site.finding import FIX, OK, WARNING
from fedbrats.checks.site.memory import Memory
from fedbrats.checks.site.step import Sample, Step, check_step, prepare_sample, take_step
from fedbrats.commands.compose import compose_config
from fedbrats.config.schema import Config, DataConfig
from fedbrats.config.site_file import SiteFile
from fedbrats.data.families import FAMILIES
from fedbrats.data.finding import find_cases
from tests.data.brats_files import write_case
from tests.tiny import MODEL

PLANTED = "BraTS19_TCIA02_606_1"


@cache
def config(*more: str) -> Config:
    return compose_config([*MODEL, "train.batch=2", *more])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteFile]:
    data, before = DataConfig(root=str(tmp_path / "data")), torch.get_num_threads()
    yield SiteFile(name="Bonn", storage=str(tmp_path / "storage"), data=data, device="cpu")
    torch.set_num_threads(before)  # a step in this process takes those of the site


@pytest.fixture
def sample(site: SiteFile, tmp_path: Path) -> Sample:
    write_case(tmp_path / "data", PLANTED)
    (case,) = find_cases(tmp_path / "data")
    return prepare_sample(site, case, FAMILIES[0].labels, tmp_path / "storage")


def test_a_sample_is_what_a_cache_would_hold(sample: Sample, tmp_path: Path) -> None:
    files = [file for file in (tmp_path / "storage" / "cases").rglob("*") if file.is_file()]
    assert sample.bytes == sum(file.stat().st_size for file in files) > 0
    assert sample.cached.image.shape[0] == 4


@pytest.mark.parametrize(
    "more",
    [(), ("privacy=dp_sgd", "privacy.sigma=1", "privacy.target_epsilon=null")],
)
def test_the_step_of_a_study(more: tuple[str, ...], site: SiteFile, sample: Sample) -> None:
    done = take_step(site, config(*more), sample.cached)
    assert done.seconds > 0
    assert 0 < done.bytes <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert done.loss == done.loss  # finite
    assert (done.steps, done.gpu_bytes) == (1, 0)


def test_the_threads_are_those_of_the_site(site: SiteFile, sample: Sample) -> None:
    site.limits.threads = 1 + torch.get_num_threads() % 2
    take_step(site, config(), sample.cached)
    assert torch.get_num_threads() == site.limits.threads


@pytest.mark.slow
def test_in_a_process_of_its_own(site: SiteFile, sample: Sample) -> None:
    found = check_step(site, config(), sample)
    assert found.verdict == OK
    assert "for a batch of 2 patches 16x16x16" in found.said
    assert found.facts["device"] == "cpu"


def killed(*parts: Any) -> None:
    """As the system ends a process when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def broken(results: Any, *parts: Any) -> None:
    results.send("the memory of the GPU ran out: end other programs on it.")


@pytest.mark.slow
@pytest.mark.parametrize(("child", "said"), [(killed, "was killed (signal 9)"), (broken, "the GPU ran out")])
def test_a_process_that_fails(
    child: Any, said: str, site: SiteFile, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_child", child)
    found = check_step(site, config(), sample)
    assert found.verdict == FIX
    assert said in found.said


class Results:
    """What a process would send."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, what: Any) -> None:
        self.sent.append(what)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.cuda.OutOfMemoryError("of case"), "the memory of the GPU ran out"),
        (MemoryError(), "memory ran out"),
        (OSError(28, "No space left on device", f"/data/{PLANTED}"), "No space left on device."),
        (ValueError(f"{PLANTED} is too small"), "ValueError: a case is too small"),
        (ValueError(f"/data/{PLANTED} is bad"), "ValueError"),
    ],
)
def test_what_fails_names_no_case_and_no_path(
    error: Exception, said: str, site: SiteFile, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*parts: Any) -> None:
        raise error

    monkeypatch.setattr(step, "take_step", fails)
    results = Results()
    step._child(results, site, config(), sample.cached)  # type: ignore[arg-type]
    (sent,) = results.sent
    assert sent.startswith(said)
    assert PLANTED not in sent
    assert "/data" not in sent


def test_a_loss_that_is_not_finite_and_memory_that_is_tight(
    site: SiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "memory_of", lambda: Memory(10 * 10**9, 10**9, True))
    assert step._judged(Step(1.0, 1, 10**9, 0, float("nan")), site, config()).verdict == FIX
    assert step._judged(Step(1.0, 1, 9 * 10**9, 0, 0.5), site, config()).verdict == WARNING
    assert step._judged(Step(1.0, 1, 7 * 10**9, 0, 0.5), site, config()).verdict == OK

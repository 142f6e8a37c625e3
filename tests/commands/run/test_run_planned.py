"""A run whose network its sites plan: the same in every arm, the same after a resume, and in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedbrats.commands.run.run import run
from fedbrats.config.schema import load_config
from fedbrats.data.fingerprint import fingerprint_of
from fedbrats.federation.server import planning
from fedbrats.files import read_json
from fedbrats.models.planned import awaits_plan, make_plan
from fedbrats.report.html import write_report
from fedbrats.runs.checkpoint import load_checkpoint
from fedbrats.runs.site_cases import read_site_cases
from tests.tiny import tiny

pytestmark = pytest.mark.usefixtures("undrawn")

PLANNED = (
    "model=nnunet",
    "model.size=small",
    "model.plan=federated",
    "survey.least=1",
    "model.plan_memory=0.02",
)
ARMS = ("federated", "pooled", "local:CBICA", "local:TCIA01", "local:TCIA02")


def planned(cache: Path, folder: Path, *more: str) -> Path:
    return run(tiny(cache, "rounds=1", "train.local_steps=1", *more, model=PLANNED), folder)


@pytest.mark.slow
def test_every_arm_has_the_network_of_the_plan(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = planned(cache, tmp_path / "run")
    found, config = read_json(folder / "plan.json"), load_config(folder / "config.yaml")
    assert config.model["strides"] == found["plan"]["strides"]
    assert config.model["input"]["patch"] == found["plan"]["patch"]
    assert config.model["channels"][0] == 16  # of the small variant
    told = read_json(folder / "survey.json")["sites"]
    assert found["plan"]["patch"] == list(make_plan(config, fingerprint_of(told)).patch)
    sides = [
        [high - low for low, high in case.meta["crop"]]
        for site in ("CBICA", "TCIA01", "TCIA02")
        for case in (lambda cases: cases.train + cases.val)(read_site_cases(folder, site))
    ]
    assert found["fingerprint"]["patients"] == len(sides)
    assert np.abs(np.median(sides, axis=0) - found["fingerprint"]["shape"]).max() < 8
    checkpoint = load_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    shapes = {arm: {n: tuple(a.shape) for n, a in checkpoint.models[arm].arrays.items()} for arm in ARMS}
    assert all(of == shapes["federated"] for of in shapes.values())
    assert sum(name.startswith("up.") for name in shapes["federated"]) == len(config.model["channels"]) - 1
    assert f"plan: {found['plan']['reasons'][1]}" in capsys.readouterr().out
    assert "The plan of the network" in write_report(folder).read_text()
    _goes_on_as_if_never_stopped(cache, tmp_path, folder, monkeypatch)


def _goes_on_as_if_never_stopped(
    cache: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the sites had answered and before the plan was written."""
    with monkeypatch.context() as patched:
        patched.setattr(planning, "make_plan", _killed)
        with pytest.raises(RuntimeError, match="killed"):
            planned(cache, tmp_path / "killed")
    killed = tmp_path / "killed"
    assert awaits_plan(load_config(killed / "config.yaml"))
    assert (killed / "survey.json").is_file()
    run(tiny(cache, f"run.resume={killed}"), tmp_path / "unused")
    assert read_json(killed / "plan.json") == read_json(folder / "plan.json")
    here, there = (_model(of) for of in (killed, folder))
    assert here.keys() == there.keys()
    for name, array in here.items():
        np.testing.assert_array_equal(array, there[name], err_msg=name)
    assert (killed / "config.yaml").read_text() == (folder / "config.yaml").read_text()


def _killed(*args: object) -> None:
    raise RuntimeError("killed")


def _model(folder: Path) -> dict[str, np.ndarray]:
    found = load_checkpoint(folder / "checkpoints")
    assert found is not None
    return {name: tensor.numpy() for name, tensor in found.models["federated"].arrays.items()}


@pytest.mark.slow
def test_the_plan_of_a_run_is_that_of_another(cache: Path, tmp_path: Path) -> None:
    first = planned(cache, tmp_path / "first", "arms=[federated]")
    model = (*PLANNED[:2], f"model.plan={first / 'plan.json'}")
    second = run(
        tiny(cache, "rounds=1", "train.local_steps=1", "arms=[pooled]", model=model), tmp_path / "second"
    )
    ours, theirs = (load_config(folder / "config.yaml").model for folder in (first, second))
    assert {**ours, "plan": "", "plan_memory": 0} == {**theirs, "plan": "", "plan_memory": 0}
    assert not (second / "survey.json").exists()

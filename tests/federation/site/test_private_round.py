"""What a site does in a private round: its draw, its patches, its noise, its steps."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedbrats.federation.site import work as site_work
from fedbrats.privacy.accounting import Entry, rdp_epsilon
from fedbrats.privacy.mechanism import Drawn, PrivateStep
from tests.federation.toy import toy_config
from tests.federation.toy_private import DP, budget, runtime, train
from tests.federation.toy_sites import Process


def test_only_the_drawn_patients_are_used_and_what_they_did_stays_home(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    train(found)
    (file,) = (budget(found).storage / "steps").iterdir()
    assert file.name == "round_00001.csv"
    lines = file.read_text().splitlines()
    assert lines[0] == "site,round,step,drawn,clipped,norm_median,norm_max,loss,clip"
    assert [line.split(",")[:3] for line in lines[1:]] == [["A", "1", "1"], ["A", "1", "2"]]
    assert all(0 <= int(line.split(",")[3]) <= 4 for line in lines[1:])


def test_the_table_of_steps_by_hand(tmp_path: Path) -> None:
    found, nan = runtime(tmp_path), math.nan
    seen = [
        Drawn(patients=3, clipped=1, norms=(0.25, nan, 2.0, 0.5), loss=0.75),
        Drawn(patients=0, clipped=0, norms=(), loss=nan),
    ]
    budget(found).record(7, seen)
    lines = (budget(found).storage / "steps" / "round_00007.csv").read_text().splitlines()
    assert lines[1:] == ["A,7,1,3,1,0.5,2.0,0.75,0.5", "A,7,2,0,0,,,,0.5"]


def test_noise_is_never_the_same_twice_unless_the_seed_is_insecure(tmp_path: Path) -> None:
    def trained(name: str, **privacy: Any) -> torch.Tensor:
        found = runtime(tmp_path / name, {**DP, **privacy})
        train(found)
        return found.network[0].weight.detach().clone()

    assert not torch.equal(trained("a"), trained("b"))
    assert torch.equal(trained("c", insecure_seed=3), trained("d", insecure_seed=3))
    assert not torch.equal(trained("e", insecure_seed=3), trained("f", insecure_seed=4))


def test_the_patches_of_a_patient_do_not_follow_from_the_public_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another patient in the step would change, for all to work out, the patches of those drawn after it."""
    seen: list[torch.Tensor] = []
    real = site_work.draw_batch

    def drawn(*args: Any, **options: Any) -> Any:
        images, labels = real(*args, **options)
        seen.append(images)
        return images, labels

    def first_patches(name: str, **privacy: Any) -> np.ndarray:
        seen.clear()
        all_drawn = {"expected_patients": 4, "patches": 8}  # q = 1
        train(runtime(tmp_path / name, {**DP, **all_drawn, **privacy}))
        return seen[0].numpy().copy()

    monkeypatch.setattr(site_work, "draw_batch", drawn)
    assert not np.array_equal(first_patches("a"), first_patches("b"))
    assert np.array_equal(first_patches("c", insecure_seed=3), first_patches("d", insecure_seed=3))


def test_a_private_round_takes_the_steps_of_its_plan(tmp_path: Path) -> None:
    epoch = replace(toy_config(tmp_path).train, local_steps=None, local_epochs=1, batch=4)
    found = runtime(tmp_path, {**DP, "expected_patients": 1}, train=epoch)
    assert (train(found)["steps"], budget(found).plan(1).steps, found.site("A").steps()) == (4, 4, 1)


def test_a_loss_that_is_not_finite_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = runtime(tmp_path, {**DP, "expected_patients": 4})
    parts = found.warm.parts
    found.warm.parts = replace(parts, loss=lambda *args: parts.loss(*args) * math.nan)
    assert train(found) == {"num-examples": 4, "steps": 2, "epsilon": rdp_epsilon([Entry(1.0, 1.0, 2)], 1e-5)}
    assert "A, round 1: no patient gave a finite loss" in caplog.text
    assert all(torch.isfinite(p).all() for p in found.network.parameters())


def test_scans_of_one_patient_are_one_patient(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    file = found.folder / "sites" / "A" / "cases.json"
    splits = json.loads(file.read_text())
    for entry in splits["train"][:3]:
        entry["patient"] = "p1"
    file.write_text(json.dumps(splits))
    found = Process(found.folder)
    assert [[c.name for c in cases] for cases in found.site("A").cases.by_patient("train")] == [
        ["a1", "a2", "a3"],
        ["a4"],
    ]
    plan = budget(found).plan(1)
    assert (plan.patients, plan.sample_rate) == (2, 1.0)


def test_the_step_is_made_of_the_plan_and_each_patient_of_its_own_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[dict[str, Any]] = []
    draws: list[tuple[Any, ...]] = []
    scans: list[tuple[str, ...]] = []
    real_step, real_draws, real_batch = PrivateStep, site_work.poisson_draws, site_work.draw_batch

    def step(*args: Any, **settings: Any) -> PrivateStep:
        steps.append(settings)
        return real_step(*args, **settings)

    def drawn(*args: Any) -> Any:
        draws.append(args)
        return real_draws(*args)

    def batch(cases: Any, rng: Any, train: Any, rules: Any, number: int, *args: Any) -> Any:
        scans.append((*(case.name for case in cases), str(number)))
        return real_batch(cases, rng, train, rules, number, *args)

    monkeypatch.setattr(site_work, "PrivateStep", step)
    monkeypatch.setattr(site_work, "poisson_draws", drawn)
    monkeypatch.setattr(site_work, "draw_batch", batch)
    own = {"sigma": 0.7, "clip": 0.3, "expected_patients": 3, "patches": 2, "engine": "vmap", "chunk": 2}
    found = runtime(tmp_path, {**DP, **own})
    train(found)
    (made,), ((number, patients, rate, *_),) = steps, draws
    assert {key: made[key] for key in ("sigma", "clip", "engine", "chunk")} == {
        "sigma": 0.7,
        "clip": 0.3,
        "engine": "vmap",
        "chunk": 2,
    }
    assert (made["expected"], number, patients, rate) == (3.0, 2, 4, 0.75)
    assert set(scans) <= {("a1", "2"), ("a2", "2"), ("a3", "2"), ("a4", "2")}
    assert scans

"""A plan in the place of what it plans, and in its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbrats.commands.compose import compose_config
from fedbrats.config.targets import ConfigError
from fedbrats.data.fingerprint import Fingerprint
from fedbrats.models.build import build_network
from fedbrats.models.planned import (
    awaits_plan,
    digest_of,
    make_plan,
    planner_of,
    read_plan,
    with_plan,
    write_plan,
)
from fedbrats.models.planning import Planner

FOUND = Fingerprint(100, (0.5, 0.5, 5.0), (0.5, 0.5, 5.0), (360, 400, 28), 0.375, 1.0)
ASKED = compose_config(["model=nnunet", "model.plan=federated", "model.size=full"])


def test_the_network_keeps_its_widths_and_counts_nnunets_labels() -> None:
    assert planner_of(ASKED.model) == Planner(8.0, 32, 320, 2, 4)
    small = compose_config(["model=nnunet", "model.plan=federated", "model.out_channels=4"])
    assert planner_of(small.model) == Planner(0.125, 16, 128, 2, 4)  # a softmax has its background


def test_a_planned_configuration_has_everything_in_it() -> None:
    made = make_plan(ASKED, FOUND)
    found = with_plan(ASKED, made)
    assert awaits_plan(ASKED)
    assert not awaits_plan(found)
    assert found.model["strides"][1:4] == [[2, 2, 1]] * 3
    assert found.model["input"] == {"patch": [256, 320, 20], "multiple": 4, "normalise": "zscore"}
    assert (found.train.batch, found.train.deep_supervision) == (2, [1.0, 0.5, 0.25, 0.125, 0.0, 0.0])
    with torch.device("meta"):
        network = build_network(found.model)
        images = torch.zeros(1, 4, 256, 320, 20)
    sides = [tuple(logits.shape[2:]) for logits in network(images)]
    assert sides == [(256, 320, 20), (128, 160, 20), (64, 80, 20), (32, 40, 20), (16, 20, 10), (8, 10, 5)]
    with pytest.raises(ValueError, match=r"multiples of \[64, 64, 4\]"):
        network(images[:, :, :, :, :18])


def test_a_plan_comes_out_of_its_file_as_it_went_in(tmp_path: Path) -> None:
    made = make_plan(ASKED, FOUND)
    write_plan(tmp_path, made, FOUND, ASKED)
    assert read_plan(tmp_path / "plan.json", "model.plan") == made
    assert digest_of(read_plan(tmp_path / "plan.json", "model.plan")) == digest_of(made)
    assert digest_of(replace(made, batch=3)) != digest_of(made)


@pytest.mark.parametrize(
    "changed",
    [
        {"patch": [64, 64]},
        {"batch": 0},
        {"batch": True},
        {"strides": [[2.5, 1, 1]]},
        {"more": 1},
        {"kernels": 3},
    ],
)
def test_a_file_that_holds_no_plan_is_named(changed: dict[str, Any], tmp_path: Path) -> None:
    write_plan(tmp_path, make_plan(ASKED, FOUND), FOUND, ASKED)
    file = tmp_path / "plan.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({"plan": {**content["plan"], **changed}}))
    with pytest.raises(ConfigError, match=r"model\.plan=x: .*plan\.json holds no plan"):
        read_plan(file, "model.plan=x")


def test_too_little_memory_names_its_key() -> None:
    asked = replace(ASKED, model={**ASKED.model, "plan_memory": 0.0001})
    with pytest.raises(ConfigError, match=r"model\.plan_memory=0\.0001: no patch .*; raise it"):
        make_plan(asked, FOUND)

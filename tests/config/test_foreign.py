"""What the configuration of a run folder may name, key by key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbrats.commands.compose import compose_config
from fedbrats.config.foreign import check_trusted, foreign_config, listed
from fedbrats.config.schema import load_config, save_config
from fedbrats.config.targets import ConfigError


def test_the_lists_are_exact() -> None:
    assert listed()["strategy"] >= {
        "fedbrats.algorithms.fedavg.FedAvg",
        "fedbrats.algorithms.rules.median.CoordinateMedian",
    }
    assert listed()["privacy"] == {"fedbrats.privacy.dp_sgd.DpSgd", "fedbrats.privacy.central.Central"}
    assert listed()["metrics.more"] == {"fedbrats.metrics.annotators.qubiq"}
    assert len(listed()["model"]) == 40
    names = [name for targets in listed().values() for name in targets]
    assert not any(part.startswith("_") for name in names for part in name.split("."))


DICE = {"_target_": "fedbrats.losses.dice.Dice"}
ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1}


@pytest.mark.parametrize(
    ("key", "node"),
    [
        ("strategy", DICE),  # of another key
        ("model", {"_target_": "torch.nn.Conv3d"}),
        ("model", {"_target_": "fedbrats.models.networks.segresnet.get_norm_layer"}),
        ("loss", {"_target_": "fedbrats.losses.dice._helper"}),
        ("loss", {**DICE, "_args_": [1]}),
        ("loss", {**DICE, "_recursive_": False}),
        ("loss", {**DICE, "_partial_": True}),
        ("loss", {**DICE, "_convert_": "object"}),
        ("loss", {"_args_": [1]}),
        ("loss", {"_target_": ["fedbrats.losses.dice.Dice"]}),
        ("optimizer", {**ADAM, "_partial_": False}),
        ("optimizer", {**ADAM, "betas": [{"_target_": "torch.optim.Adam"}]}),
        ("model", {"size": "full", "act": {"_target_": "fedbrats.models.networks.nnunet.nnunet"}}),
        ("strategy", {"_target_": "fedbrats.algorithms.fedavg.FedAvg", "rule": DICE}),
        ("privacy", {"deep": [{"er": {"_target_": "fedbrats.privacy.central.Central"}}]}),
    ],
)
def test_nothing_else_may_be_named(key: str, node: Any) -> None:
    whole = {"train": {"optimizer": node}} if key == "optimizer" else {key: node}
    with pytest.raises(ConfigError, match=r"here: its configuration names .* at "):
        check_trusted(whole, "here")


def test_parts_of_a_loss_are_losses() -> None:
    node = {"_target_": "fedbrats.losses.compound.WeightedSum", "parts": [DICE, {"weight": 1, "loss": DICE}]}
    check_trusted({"loss": node}, "here")
    node["parts"] = [{"_target_": "fedbrats.algorithms.fedavg.FedAvg"}]
    with pytest.raises(ConfigError, match=r"FedAvg at loss\.parts\[0\]"):
        check_trusted({"loss": node}, "here")


def test_own_packages_are_named_on_the_command_line_and_only_there() -> None:
    own = {"_target_": "tests.inference.toy_networks.Echo"}
    check_trusted(
        {"model": own, "strategy": {**own, "rule": own}, "metrics": {"more": [own]}}, "here", ["tests"]
    )
    for where in (
        {"data": own},
        {"model": {**own, "_args_": []}},
        {"run": {"trust": ["tests"]}, "model": own},
    ):
        with pytest.raises(ConfigError):
            check_trusted(where, "here", ["tests"] if "run" not in where else [])
    for target in (
        "tests.inference.toy_networks.torch.hub.load",
        "tests._private.Net",
        "tests_of_others.Net",
    ):
        with pytest.raises(ConfigError):
            check_trusted({"model": {"_target_": target}}, "here", ["tests"])


def test_what_the_folder_says_of_trust_counts_for_nothing(tmp_path: Path) -> None:
    config = compose_config([])
    config = replace(
        config, strategy={"_target_": "os.system"}, run=replace(config.run, trust=["os", "posix"])
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").run.trust == ["os", "posix"]
    with pytest.raises(ConfigError, match=r"names os\.system at strategy"):
        foreign_config(tmp_path, "here")

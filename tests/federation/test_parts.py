"""What a configuration names is built once, however many institutions take part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbrats.arrays import travelling
from fedbrats.config.targets import ConfigError
from fedbrats.federation import parts as parts_module
from fedbrats.federation.parts import parts_of
from tests.federation.toy import toy_config, toy_network

BUILT: list[str] = []  # device of every network that was built in this process


def counted(**options: Any) -> torch.nn.Module:
    """A small network in the place of the configured one, whatever its options."""
    network = toy_network()
    BUILT.append(next(network.parameters()).device.type)
    return network


def test_an_equal_configuration_has_the_same_parts(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    first = parts_of(config)
    assert parts_of(replace(config, rounds=99, arms=["federated"])) is first
    assert parts_of(toy_config(tmp_path)) is first
    assert parts_of(replace(config, seed=5)) is not first


def test_the_network_is_built_anew_only_if_its_own_settings_change(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    first = parts_of(config)
    other = parts_of(replace(config, seed=5))
    assert other is not first
    assert other.blank is first.blank
    assert parts_of(replace(config, model=config.model | {"size": "full"})).blank is not first.blank


def test_what_is_found_by_looking_costs_no_memory(tmp_path: Path) -> None:
    parts = parts_of(toy_config(tmp_path))
    assert {p.device.type for p in parts.blank.parameters()} == {"meta"}
    assert parts.regions == ("WT", "TC", "ET")
    assert parts.trainable == {n for n, _ in toy_network().named_parameters()}
    assert parts.signature.keys() - parts.trainable == {"1.running_mean", "1.running_var"}


def test_the_weights_follow_the_seed_and_stay_as_they_are(tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        parts_module._BUILT.clear()
        return next(iter(travelling(parts_of(toy_config(tmp_path, seed=seed)).network).values()))

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_builds_its_network_twice_in_the_main_process(
    cache: Path, tmp_path: Path, workers: int
) -> None:
    """Once without memory, to look at it, and once with the weights that all start from."""
    from fedbrats.commands.run.run import run
    from tests.tiny import tiny

    BUILT.clear()
    parts_module._BUILT.clear()
    parts_module._BLANK.clear()
    model = ("model=segresnet", f"model._target_={__name__}.counted", "train.patch=[16,16,16]")
    run(tiny(cache, f"runtime.workers={workers}", "rounds=1", model=model), tmp_path / "run")
    assert sorted(BUILT) == ["cpu", "meta"]


def test_what_cannot_be_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.mux"):
        parts_of(toy_config(tmp_path, strategy={"_target_": "fedbrats.algorithms.fedavg.FedAvg", "mux": 1}))

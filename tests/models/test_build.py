"""From a `model` node to a network that is known to take its patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from fedbrats.checks.config import checked
from fedbrats.commands.compose import register_with_hydra
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.models.build import (
    Resized,
    build_network,
    channels_last,
    dimensions,
    input_rules,
    output_channels,
    output_shape,
    patch_of,
    probe,
    regions_of,
    window_of,
)
from tests.tiny import ROOT


def config_of(*overrides: str) -> Config:
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checked(compose("config", overrides=list(overrides)))


def test_the_patch_is_the_models_own_unless_it_is_given() -> None:
    config = config_of("model=segresnet", "model.size=small")
    assert patch_of(config) == window_of(config) == config.model["input"]["patch"]
    config = config_of(
        "model=segresnet", "model.size=small", "train.patch=[16,16,24]", "inference.window=[32,32,16]"
    )
    assert (patch_of(config), window_of(config)) == ([16, 16, 24], [32, 32, 16])


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.patch=[32,32]"], r"train\.patch=\[32, 32\]: the network is 3D and takes 3 sides"),
        (["train.patch=[32,32,30]"], r"train\.patch=.*multiples of .* such as \[32, 32, 32\]"),
        (["inference.window=[32,32,30]"], r"inference\.window=.*multiples of"),
        (["model.input.patch=[20,20,21]"], r"model\.input\.patch=.*multiples of"),
        (["+model.input.planes=[top]"], r"model\.input\.planes"),
        (["model.input.normalise=max"], r"model\.input\.normalise"),
        (["+model.input.nonsense=1"], "nonsense"),
        (["model.input.multiple=0"], r"model\.input\.multiple"),
        (["+model.input.resize=[64,64]"], r"model\.input\.resize"),
        (["model.out_channels=2"], r"model\.out_channels=2"),
    ],
)
def test_what_the_network_cannot_take_is_refused_with_the_fix(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of("model=segresnet", "model.size=small", *overrides)


def test_a_patch_that_only_the_network_itself_can_refuse() -> None:
    with pytest.raises(ConfigError, match=r"train\.patch=\[12, 12, 12\]: the network does not take it"):
        config_of(
            "model=residual_unet",
            "model.size=small",
            "train.patch=[12,12,12]",
            "model.input.multiple=1",
            "model.channels=[8,16,16,16,16]",
        )


def test_what_a_network_predicts_is_found_by_its_channels() -> None:
    assert regions_of(config_of("model=segresnet", "model.size=small")) == ("WT", "TC", "ET")
    assert regions_of(config_of("model=segresnet", "model.size=small", "model.out_channels=1")) == ("WT",)


class Doubling(nn.Module):
    """Says what size it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 1, 1)
        self.seen: tuple[int, ...] = ()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = tuple(images.shape[2:])
        return images[:, :1]


def test_a_fixed_size_is_kept_from_the_outside() -> None:
    inner = Doubling()
    images = torch.arange(8.0).reshape(1, 1, 2, 4).expand(1, 4, 2, 4)
    network = Resized(inner, (4, 8))
    output = network(images)
    assert (inner.seen, tuple(output.shape)) == ((4, 8), (1, 1, 2, 4))
    constant = torch.full((1, 4, 6, 10), 3.0)
    assert torch.allclose(network(constant), constant[:, :1])


def test_channels_last_for_both_kinds() -> None:
    flat, deep = nn.Sequential(nn.Conv2d(4, 8, 3)), nn.Sequential(nn.Conv3d(4, 8, 3))
    assert (dimensions(flat), dimensions(deep)) == (2, 3)
    assert channels_last(flat)[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert channels_last(deep)[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    with pytest.raises(ValueError, match="no convolutions"):
        dimensions(nn.Linear(1, 1))


def test_the_node_is_left_as_it_is() -> None:
    node: dict[str, Any] = {
        "_target_": "fedbrats.models.networks.segresnet.segresnet",
        "init_filters": 8,
        "input": {"patch": [32, 32, 32]},
    }
    torch.manual_seed(0)
    network = build_network(node)
    assert "input" in node
    assert input_rules(node).patch == [32, 32, 32]
    with torch.device("meta"):
        assert output_channels(build_network(node).eval(), (32, 32, 32)) == 3
    assert dimensions(network) == 3


@pytest.mark.parametrize("node", [5, "abc", [1, 2], {"patch": 3}, {"sides": [8, 8]}, {8: 8}])
def test_what_is_no_rule_is_refused(node: object) -> None:
    with pytest.raises(ConfigError, match=r"^model\.input"):
        input_rules({"input": node})


def test_rules_belong_to_whoever_asked_for_them() -> None:
    node = {"input": {"patch": [32, 32, 32]}}
    input_rules(node).patch[0] = 8
    assert input_rules(node).patch == [32, 32, 32]
    assert input_rules(OmegaConf.create(node)).patch == [32, 32, 32]
    assert input_rules(dict(OmegaConf.create(node))).patch == [32, 32, 32]


def test_a_network_of_one_size_takes_any_patch_that_is_resized_to_it() -> None:
    """DR-UNet104 takes multiples of 8; slices of 50 by 60 reach it as 64 by 64."""
    sizes = ["train.patch=[50,60]", "inference.window=[50,60]"]
    with pytest.raises(ConfigError, match=r"train\.patch=\[50, 60\]: sides must be multiples of 8"):
        config_of("model=dr_unet104", "model.size=small", *sizes)
    config = config_of("model=dr_unet104", "model.size=small", "+model.input.resize=[64,64]", *sizes)
    network = build_network(config.model).eval()
    assert network(torch.zeros(1, 4, 50, 60)).shape == (1, 4, 50, 60)
    with pytest.raises(ConfigError, match=r"train\.patch=.*the network does not take it"):
        config_of("model=dr_unet104", "model.size=small", "+model.input.resize=[60,60]", *sizes)


def test_the_same_patch_is_sent_through_a_network_once() -> None:
    class Counted(nn.Conv3d):
        seen = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Counted.seen += 1
            return super().forward(images)

    network = Counted(4, 3, 1, device="meta")
    for _ in range(2):
        for training in (True, False):
            network.train(training)
            assert probe(network, [8, 8, 8]) == (3, 1)
    assert Counted.seen == 2  # in training and not
    assert output_shape(network, [8, 8, 16]) == (1, 3, 8, 8, 16)
    assert Counted.seen == 3

"""A network that sees some of the modalities: how many inputs it has, what it reads, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.commands.models.table import model_names
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import MODALITIES
from fedbrats.federation.parts import parts_of
from fedbrats.models.build import Chosen, Resized, build_network, patch_of
from fedbrats.models.facts import mixing_modules
from fedbrats.models.node import arguments, channels_of
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import node
from tests.models.test_build import config_of

TWO = "+model.input.modalities=[flair,t1ce]"


PAIRS = "modality_interaction"  # a network of all four


def inputs_of(network: nn.Module) -> int:
    """Channels that the first convolution reads."""
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    return first.in_channels


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize("name", [name for name in model_names(size="small") if name != PAIRS])
def test_every_network_sees_what_it_is_given_and_nothing_else(name: str) -> None:
    model = node(name, "small")
    model["input"] = {**model["input"], "modalities": ["flair", "t1ce"]}
    torch.manual_seed(0)
    network = build_network(model).eval()
    assert arguments(model)["in_channels"] == 2
    sides = list(model["input"]["patch"])
    images = torch.randn(1, 4, *sides)
    with torch.no_grad():
        before = network(images)
        images[:, [MODALITIES.index("t1"), MODALITIES.index("t2")]] = torch.nan
        assert torch.equal(network(images), before)
        images[:, MODALITIES.index("t1ce")] += 1
        assert not torch.equal(network(images), before)


def test_a_network_of_all_four_says_so() -> None:
    model = node(PAIRS, "small")
    model["input"] = {**model["input"], "modalities": ["flair", "t1ce"]}
    with pytest.raises(Exception, match=r"model\.in_channels=2: the network pairs four sequences"):
        build_network(model)


def test_the_order_of_the_names_does_not_matter_and_all_are_all() -> None:
    model = node("segresnet", "small")

    def seen(*names: str) -> list[int] | None:
        return channels_of({**model, "input": {**model["input"], "modalities": list(names)}})

    assert seen("flair", "t1ce") == seen("t1ce", "flair") == [1, 3]
    assert seen(*MODALITIES[::-1]) is None
    assert channels_of(model) is None


def test_the_first_convolution_and_nothing_else_becomes_smaller() -> None:
    one, four = (
        parts_of(config_of("model=segresnet", "model.size=small", *extra))
        for extra in (["+model.input.modalities=[t1]"], [])
    )
    assert isinstance(one.blank, Chosen)
    assert inputs_of(one.blank) == 1
    own = {name.removeprefix("network."): array for name, array in one.blank.named_parameters()}
    differing = {
        name: (tuple(own[name].shape), tuple(array.shape))
        for name, array in four.blank.named_parameters()
        if own[name].shape != array.shape
    }
    assert differing == {"convInit.conv.weight": ((8, 1, 3, 3, 3), (8, 4, 3, 3, 3))}
    assert one.regions == four.regions
    assert mixing_modules(one.blank) == []
    assert head_modules(one.blank, one.patch) == tuple(
        f"network.{name}" for name in head_modules(four.blank, four.patch)
    )


def test_a_2d_network_is_resized_as_before() -> None:
    config = config_of("model=jonsson_resunet", "model.size=full", TWO)
    network = parts_of(config).blank
    assert isinstance(network, Resized)
    assert inputs_of(network) == 2
    assert network(torch.zeros(2, 4, *patch_of(config), device="meta")).shape == (2, 1, 192, 192)


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+model.input.modalities=[t1c]"],
            r"model\.input\.modalities=\['t1c'\]: a list of one or more of t1, t1ce",
        ),
        (["+model.input.modalities=[t1,t1]"], "each once, or null for all"),
        (["+model.input.modalities=[]"], "one or more"),
        (["+model.input.modalities=flair"], "modalities"),
        ([TWO, "model.in_channels=3"], r"model\.in_channels=3: model\.input\.modalities names 2; leave"),
        (
            [TWO, "+scenario.missing_modalities.TMC=[flair,t1ce,t1]"],
            r"scenario\.missing_modalities\.TMC=.*the network sees flair, t1ce alone",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of("model=segresnet", "model.size=small", *overrides)


def test_a_site_may_lack_one_of_them() -> None:
    config = config_of(
        "model=segresnet", "model.size=small", TWO, "+scenario.missing_modalities.TMC=[flair,t1]"
    )
    assert config.scenario.missing_modalities == {"TMC": ["flair", "t1"]}

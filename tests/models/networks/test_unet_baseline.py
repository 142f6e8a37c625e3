"""U-Net baseline: the six models of the paper, their sizes by hand, order of norm, activation and convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fedbrats.models.networks.unet_baseline import unet_baseline
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)

# Section 2.2; models 1 and 2 differ by their patch alone.
MODELS: dict[int, dict[str, Any]] = {
    1: {"blocks": 3, "filters": 4, "norm": "batch", "activation": "relu", "preactivation": False},
    3: {"blocks": 5, "filters": 4, "norm": "batch", "activation": "prelu", "preactivation": False},
    4: {"blocks": 5, "filters": 16, "norm": "instance", "activation": "leaky_relu", "preactivation": False},
    5: {"blocks": 5, "filters": 4, "norm": "batch", "activation": "prelu", "preactivation": True},
    6: {"blocks": 5, "filters": 16, "norm": "batch", "activation": "prelu", "preactivation": True},
}
NORMS = {"batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d}
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "prelu": nn.PReLU}


def small(**arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return unet_baseline(**{"blocks": 3, "filters": 4, **arguments})


def pairs(blocks: int, filters: int) -> list[tuple[int, int]]:
    """Channels of every 3x3x3 convolution, in order."""
    found, before = [], 4
    for level in range(blocks):
        width = filters * 2**level
        found += [(before, width), (width, 2 * width)]
        before = 2 * width
    for level in range(blocks - 2, -1, -1):
        skip = 2 * filters * 2**level
        found += [(3 * skip, skip), (skip, skip)]
    return found


@pytest.mark.parametrize("number", MODELS)
def test_the_models_of_the_paper(number: int) -> None:
    settings = MODELS[number]
    with torch.device("meta"):
        network = unet_baseline(**settings)
    found = [m for m in network.modules() if isinstance(m, nn.Conv3d)][:-1]
    expected = pairs(settings["blocks"], settings["filters"])
    assert [(m.in_channels, m.out_channels) for m in found] == expected
    # The paper prints no number of parameters; by hand: weights and bias, two per channel of a norm, one of a PReLU.
    size = sum(27 * i * o + o for i, o in expected) + 2 * settings["filters"] * 3 + 3
    size += sum(2 * (i if settings["preactivation"] else o) for i, o in expected[1:])
    size += len(expected) if settings["activation"] == "prelu" else 0
    assert count(network) == size
    kinds = (NORMS[settings["norm"]], ACTIVATIONS[settings["activation"]])
    inner = [kinds[0], kinds[1], nn.Conv3d] if settings["preactivation"] else [nn.Conv3d, *kinds]
    assert [type(m) for m in network.encoder[0][0]] == [nn.Conv3d, kinds[1]]
    blocks = [*network.encoder[0][1:], *(c for b in (*network.encoder[1:], *network.decoder) for c in b)]
    assert all([type(m) for m in block] == inner for block in blocks)


def test_the_default_is_model_6() -> None:
    with torch.device("meta"):
        assert count(unet_baseline()) == count(unet_baseline(**MODELS[6])) == 16_474_469


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_sequences(channels: int) -> None:
    with torch.no_grad():
        assert small(in_channels=channels)(torch.zeros(2, channels, 8, 16, 12)).shape == (2, 3, 8, 16, 12)


def test_what_comes_up_is_trilinear_and_beside_the_skip() -> None:
    network, seen = small(), []
    network.decoder[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.encoder[0].register_forward_hook(lambda _, __, out: seen.append(out))
    network.decoder[0].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        network(torch.randn(2, 4, 8, 8, 8))
    skip, below, joined = seen
    assert torch.equal(joined[:, :8], skip)
    larger = nn.functional.interpolate(below, scale_factor=2, mode="trilinear")
    torch.testing.assert_close(joined[:, 8:], larger)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


@pytest.mark.parametrize("preactivation", [True, False])
def test_steps_lower_the_loss(preactivation: bool) -> None:
    network = small(preactivation=preactivation)
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_outputs_start_at_the_prior() -> None:
    torch.testing.assert_close(small().head.bias.detach(), torch.full((3,), -2.1972246))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4"):
        small()(torch.zeros(2, 4, 8, 8, 6))
    with pytest.raises(ValueError, match=r"model\.blocks=1, model\.filters=4: 2 or more blocks"):
        unet_baseline(blocks=1, filters=4)
    with pytest.raises(ValueError, match=r"model\.activation=gelu: choose one of relu, leaky_relu, prelu"):
        unet_baseline(activation="gelu")
    with pytest.raises(ValueError, match=r"model\.norm: unknown normalisation 'layer'"):
        unet_baseline(norm="layer")
    with pytest.raises(ValueError, match=r"model\.filters=12: must be a multiple of 8"):
        unet_baseline(filters=12, norm="group")


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("unet_baseline")
    assert count(network) == 16_474_469
    assert rules == {
        **{"patch": [128, 128, 128], "multiple": 16},
        **{"modalities": None, "normalise": "histogram"},
    }
    network, rules = configured("unet_baseline", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 20_000 < count(network) < 500_000
    assert network(torch.zeros(2, 4, *rules["patch"])).shape == (2, 3, *rules["patch"])

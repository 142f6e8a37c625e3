"""3D ResUNet: its size by hand, residual blocks down and up, classes that exclude each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.resunet3d import resunet3d
from fedbrats.personalization.heads import head_modules
from fedbrats.training.schedule import learning_rate_factor
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def small() -> nn.Module:
    torch.manual_seed(0)
    return resunet3d(channels=(8, 16, 24))


def block(before: int, width: int, shortcut: bool) -> int:
    """Parameters of a residual block without biases: convolutions and two numbers per channel of each norm."""
    inner = 27 * before * width + 27 * width * width + 4 * width
    return inner + (before * width + 2 * width if shortcut else 0)


def test_number_of_parameters() -> None:
    # The paper prints none; this one by hand.
    widths = (32, 64, 128, 256, 512)
    expected = sum(block(before, width, True) for before, width in zip((4, *widths), widths))
    for deeper, width in zip(widths[:0:-1], widths[-2::-1]):
        expected += 8 * deeper * width + block(2 * width, width, True)
    expected += 32 * 4 + 4
    with torch.device("meta"):
        assert count(resunet3d()) == expected == 22_931_716


def test_block_adds_its_input() -> None:
    encoder, features = small().encoder[1], torch.randn(1, 8, 8, 8, 8)
    nn.init.zeros_(encoder.norm2.weight)
    with torch.no_grad():
        shortcut = encoder.norm3(encoder.conv3(features))
        torch.testing.assert_close(encoder(features), nn.functional.leaky_relu(shortcut, 0.01))


def test_decoder_blocks_are_residual_too() -> None:
    network = small()
    assert all(hasattr(level.conv_block, "conv3") for level in network.decoder)
    assert sum(isinstance(m, nn.ConvTranspose3d) for m in network.modules()) == 2


@pytest.mark.parametrize("mode", [True, False])
def test_logits_lie_on_the_grid_of_the_image(mode: bool) -> None:
    with torch.no_grad():
        assert small().train(mode)(torch.zeros(2, 4, 8, 16, 12)).shape == (2, 4, 8, 16, 12)
        other = resunet3d(in_channels=2, out_channels=3, channels=(4, 8))
        assert other(torch.zeros(1, 2, 8, 8, 4)).shape == (1, 3, 8, 8, 4)


def test_rate_is_that_of_equation_2() -> None:
    config_rate = [1e-3 * learning_rate_factor(i + 1, 200, "poly") for i in (0, 100, 199)]
    assert config_rate == pytest.approx([1e-3, 1e-3 * 0.5**0.9, 1e-3 * 0.005**0.9])


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_background_starts_at_one_minus_the_prior() -> None:
    start = small().head.bias.softmax(0).detach()
    torch.testing.assert_close(start, torch.tensor([0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3]))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4"):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match="one voxel is left at the deepest level"):
        small()(torch.zeros(1, 4, 4, 4, 4))
    with pytest.raises(ValueError, match=r"model\.channels=\[8\]"):
        resunet3d(channels=[8])


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("resunet3d")
    assert count(network) == 22_931_716
    assert rules == {"patch": [128, 128, 128], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("resunet3d", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 50_000 < count(network) < 500_000
    assert network(torch.zeros(1, 4, *rules["patch"])).shape == (1, 4, *rules["patch"])

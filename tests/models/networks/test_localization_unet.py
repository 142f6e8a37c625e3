"""Residual 3D U-Net with localization: the printed block, both sizes of the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.localization_unet import ResidualBlock, localization_unet
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def small() -> nn.Module:
    torch.manual_seed(0)
    return localization_unet(filters=8, levels=3)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def block(before: int, width: int) -> int:  # group norms of the first two, three convolutions with bias
        return 2 * before + 2 * width + (before + 2 * width) * width * 27 + 3 * width

    def whole(f: int, outputs: int) -> int:
        down = block(4, f) + block(f, 2 * f) + block(2 * f, 4 * f) + block(4 * f, 8 * f)
        up = sum(2 * w * w * 27 + w + block(2 * w, w) for w in (4 * f, 2 * f, f))
        return down + up + f * outputs + outputs

    with torch.device("meta"):
        assert count(localization_unet()) == whole(64, 3) == 37_397_387
        assert count(localization_unet(filters=24, out_channels=1)) == whole(24, 1) == 5_263_017


def test_block_adds_the_first_output_and_activates_after_it() -> None:
    torch.manual_seed(0)
    block, features = ResidualBlock(8, 16), torch.randn(2, 8, 6, 4, 4)
    nn.init.zeros_(block.third.weight)
    nn.init.constant_(block.third.bias, -0.1)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(block(features), (block.first(features) - 0.1).clamp(min=0))


def test_two_group_norms_come_before_their_convolutions() -> None:
    torch.manual_seed(0)
    block, features = ResidualBlock(16, 32), torch.randn(1, 16, 8, 8, 8)
    norms = [m for m in block.modules() if isinstance(m, nn.GroupNorm)]
    assert [(m.num_groups, m.num_channels) for m in norms] == [(8, 16), (8, 32)]
    with torch.no_grad():  # so the block does not see a change of brightness or contrast
        torch.testing.assert_close(block(5 * features + 3), block(features), atol=1e-4, rtol=1e-4)


def test_the_norm_of_the_input_keeps_the_contrast_between_sequences() -> None:
    first = next(m for m in localization_unet(filters=8).modules() if isinstance(m, nn.GroupNorm))
    assert (first.num_groups, first.num_channels) == (1, 4)


def test_halves_by_pooling_and_doubles_by_transposed_convolutions_of_3() -> None:
    network = localization_unet(filters=8)
    ups = [m for m in network.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [(m.kernel_size, m.stride) for m in ups] == [((3, 3, 3), (2, 2, 2))] * 3
    assert {m.stride for m in network.modules() if isinstance(m, nn.Conv3d)} == {(1, 1, 1)}


@pytest.mark.parametrize("mode", [True, False])
def test_logits_lie_on_the_grid_of_the_image(mode: bool) -> None:
    network = localization_unet(filters=8, out_channels=1).train(mode)
    with torch.no_grad():
        assert network(torch.zeros(2, 4, 8, 16, 24)).shape == (2, 1, 8, 16, 24)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_outputs_start_at_the_prior() -> None:
    torch.testing.assert_close(localization_unet(filters=8).head.bias.detach(), torch.full((3,), -2.1972246))


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[16, 16, 12\]: sides must be multiples of 8; set train.patch"
    ):
        localization_unet(filters=8)(torch.zeros(1, 4, 16, 16, 12))
    with pytest.raises(ValueError, match=r"model\.levels=1"):
        localization_unet(levels=1)


@pytest.mark.parametrize(
    ("name", "parameters", "outputs", "patch"),
    [("localization_unet", 37_397_387, 3, [128] * 3), ("localizer", 5_263_017, 1, [192, 192, 160])],
)
def test_configurations_build(name: str, parameters: int, outputs: int, patch: list[int]) -> None:
    with torch.device("meta"):
        network, rules = configured(name)
        assert count(network) == parameters
        assert network(torch.zeros(1, 4, 16, 16, 16)).shape[1] == outputs
    assert rules == {"patch": patch, "multiple": 8, "normalise": "zscore"}
    network, rules = configured(name, "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 200_000 < count(network) < 1_500_000
    with torch.no_grad():
        assert network(torch.zeros(1, 4, *rules["patch"])).shape == (1, outputs, 32, 32, 32)

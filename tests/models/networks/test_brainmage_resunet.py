"""BrainMaGe's ResU-Net: printed size and operations, shapes, residual blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.models.networks.brainmage_resunet import ResidualBlock, brainmage_resunet
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
    return brainmage_resunet(filters=8, levels=3)


def test_has_the_printed_number_of_parameters() -> None:
    with torch.device("meta"):
        printed = count(brainmage_resunet(in_channels=1, out_channels=2))
        assert count(brainmage_resunet()) == 8_289_299
    assert printed == 8_287_986
    assert round(printed / 1e6, 3) == 8.288  # section 4 of the paper


def test_has_about_the_printed_number_of_operations() -> None:
    # Section 4: 350.73e9 for one image of 128x128x128. Two per multiplication; norms and activations not counted.
    network = brainmage_resunet(in_channels=1, out_channels=2)
    operations: list[int] = []

    def add(layer: nn.Conv3d, _: object, out: Tensor) -> None:
        operations.append(2 * out.numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.to("meta").register_forward_hook(add)
    with torch.device("meta"):
        network.to("meta")(torch.zeros(1, 1, 128, 128, 128))
    # The 1x1x1 convolution before the interpolation saves seven eighths of its work.
    saved = sum(7 * 2 * (128 >> level) ** 3 // 8 * 2 * w * w for level, w in enumerate((16, 32, 64, 128)))
    assert (sum(operations) + saved) / 350.72665e9 == pytest.approx(1, abs=0.005)


def test_block_adds_its_input() -> None:
    block, features = ResidualBlock(8), torch.randn(1, 8, 4, 4, 4)
    nn.init.zeros_(block.inner[-1].weight)
    torch.testing.assert_close(block(features), features)


def test_up_sampling_is_trilinear_of_a_1x1x1_convolution() -> None:
    torch.manual_seed(0)
    up, features = small().up[0], torch.randn(1, 32, 4, 4, 4)
    weight = next(p for p in up.parameters())
    assert weight.shape == (16, 32, 1, 1, 1)
    with torch.no_grad():
        larger = interpolate(features, scale_factor=2, mode="trilinear", align_corners=True)
        torch.testing.assert_close(up(features), nn.functional.conv3d(larger, weight), atol=1e-5, rtol=1e-4)


def test_norms_are_affine_and_keep_no_statistics() -> None:
    norms = [m for m in small().modules() if isinstance(m, nn.InstanceNorm3d)]
    assert norms
    assert all(m.affine and not m.track_running_stats for m in norms)


@pytest.mark.parametrize("mode", [True, False])
def test_logits_lie_on_the_grid_of_the_image(mode: bool) -> None:
    with torch.no_grad():
        assert brainmage_resunet(filters=4).train(mode)(torch.zeros(2, 4, 16, 32, 48)).shape == (
            2,
            3,
            16,
            32,
            48,
        )


def test_dropout_acts_in_training_only() -> None:
    network, images = brainmage_resunet(filters=4, levels=2, dropout=0.5), torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_outputs_start_at_the_prior() -> None:
    torch.testing.assert_close(small().head[-1].bias.detach(), torch.full((3,), -2.1972246))


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[16, 24, 16\]: sides must be multiples of 16; set train.patch"
    ):
        brainmage_resunet(filters=4)(torch.zeros(1, 4, 16, 24, 16))
    with pytest.raises(ValueError, match="one voxel is left at the deepest level"):
        brainmage_resunet(filters=4)(torch.zeros(1, 4, 16, 16, 16))
    with pytest.raises(ValueError, match=r"model\.levels=1"):
        brainmage_resunet(levels=1)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("brainmage_resunet")
    assert count(network) == 8_289_299
    assert rules == {"patch": [128, 128, 128], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("brainmage_resunet", "small")
    assert head_modules(network, rules["patch"]) == ("head.1",)
    assert 200_000 < count(network) < 1_500_000
    assert rules["multiple"] == 8
    assert network(torch.zeros(1, 4, *rules["patch"])).shape == (1, 3, 32, 32, 32)

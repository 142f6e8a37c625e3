"""U-Net of Vox2Vox's generator: its size by hand, what runs across, padding of even kernels, the last norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbrats.models.networks.vox2vox_unet import vox2vox_unet
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
    return vox2vox_unet(filters=4)


def test_number_of_parameters() -> None:
    # The paper prints none. By hand: 4x4x4 kernels without bias, two numbers per channel of each norm.
    widths = (64, 128, 256, 512)
    expected = sum(64 * i * o + 2 * o for i, o in zip((4, *widths), widths))  # Downward
    expected += sum(64 * w * w + 2 * w for w in widths)  # Horizontal1
    expected += sum(64 * 2 * w * w + 2 * w for w in widths[:3])  # Horizontal2
    expected += sum(64 * i * o + 2 * o for i, o in ((512, 256), (512, 128), (256, 64)))  # Upward1
    expected += 64 * 128 * 4 + 2 * 4  # Upward2
    with torch.device("meta"):
        assert count(vox2vox_unet()) == expected == 57_988_616


def test_blocks_are_as_many_as_printed() -> None:
    network = small()
    parts = (network.down, network.horizontal1, network.horizontal2, network.up)
    assert [len(part) for part in parts] == [4, 4, 3, 3]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    assert len(convolutions) == 15
    assert {m.kernel_size for m in convolutions} == {(4, 4, 4)}
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.3}
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.2] * 3
    assert [type(m) for m in network.horizontal2[0]][2:] == [nn.InstanceNorm3d, nn.Dropout, nn.LeakyReLU]


def test_horizontal2_sees_what_comes_down_beside_what_horizontal1_made_of_it() -> None:
    network, seen = small().eval(), {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, given, out: seen.update({name: (given[0], out)}))

    for name in ("down", "horizontal1", "horizontal2"):
        for level, module in enumerate(getattr(network, name)):
            keep(f"{name}.{level}", module)
    for level, module in enumerate(network.up):
        keep(f"up.{level}", module)
    keep("last", network.last)
    with torch.no_grad():
        network(torch.randn(1, 4, 32, 16, 16))
    for level in range(3):
        joined = torch.cat([seen[f"down.{level}"][1], seen[f"horizontal1.{level}"][1]], dim=1)
        assert torch.equal(seen[f"horizontal2.{level}"][0], joined)
    assert torch.equal(seen["up.0"][0], seen["horizontal1.3"][1])
    for up, level, name in ((0, 2, "up.1"), (1, 1, "up.2"), (2, 0, "last")):
        joined = torch.cat([seen[f"up.{up}"][1], seen[f"horizontal2.{level}"][1]], dim=1)
        assert torch.equal(seen[name][0], joined)


def test_even_kernels_keep_the_sides_with_one_zero_before_and_two_after() -> None:
    pad, convolution = small().horizontal1[0][:2]
    nn.init.zeros_(convolution.weight)
    with torch.no_grad():
        convolution.weight[0, 0, 0, 0, 0] = 1  # reads the voxel one before
        image = torch.arange(8.0).view(1, 1, 2, 2, 2).expand(1, 4, 2, 2, 2)
        found: Tensor = convolution(pad(image))
    assert found.shape == (1, 4, 2, 2, 2)
    assert found[0, 0].flatten().tolist() == [0, 0, 0, 0, 0, 0, 0, 0 + image[0, 0, 0, 0, 0].item()]
    with torch.no_grad():
        convolution.weight[0, 0, 0, 0, 0], convolution.weight[0, 0, 3, 3, 3] = 0, 1  # two after
        assert not convolution(pad(image)).any()
        convolution.weight[0, 0, 3, 3, 3], convolution.weight[0, 0, 2, 2, 2] = 0, 1  # one after
        assert convolution(pad(image))[0, 0].flatten().tolist() == [7, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("mode", [True, False])
def test_logits_lie_on_the_grid_of_the_image(mode: bool) -> None:
    with torch.no_grad():
        assert small().train(mode)(torch.zeros(2, 4, 16, 32, 48)).shape == (2, 4, 16, 32, 48)
        assert vox2vox_unet(2, 3, filters=2)(torch.zeros(1, 2, 32, 16, 16)).shape == (1, 3, 32, 16, 16)


def test_dropout_acts_in_training_only() -> None:
    network, images = small(), torch.randn(1, 4, 32, 16, 16)
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (32, 16, 16)) < 1e-9


@pytest.mark.slow
def test_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    network = vox2vox_unet(filters=2)
    losses = losses_of_steps(network, (32, 16, 16))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_background_starts_at_one_minus_the_prior() -> None:
    # The last norm takes every mean away, so the mean of the logits is its bias.
    with torch.no_grad():
        means = small().eval()(torch.randn(1, 4, 32, 16, 16)).mean((0, 2, 3, 4))
    torch.testing.assert_close(means.softmax(0), torch.tensor([0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3]))
    assert not vox2vox_unet(filters=1, prior=None).norm.bias.any()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[32, 24, 16\]: sides must be multiples of 16"):
        small()(torch.zeros(1, 4, 32, 24, 16))
    with pytest.raises(ValueError, match="one voxel is left at the deepest level"):
        small()(torch.zeros(1, 4, 16, 16, 16))
    with pytest.raises(ValueError, match=r"model\.filters=0: must be 1 or more"):
        vox2vox_unet(filters=0)
    with pytest.raises(ValueError, match=r"model\.prior=1: must lie in \(0, 1\)"):
        vox2vox_unet(filters=1, prior=1)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("vox2vox_unet")
    assert count(network) == 57_988_616
    assert rules == {"patch": [128, 128, 128], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("vox2vox_unet", "small")
    assert head_modules(network, rules["patch"]) == ("norm",)
    assert 50_000 < count(network) < 1_500_000
    assert network(torch.zeros(1, 4, *rules["patch"])).shape == (1, 4, *rules["patch"])

"""DR-UNet104: 104 convolutions, the shapes of Figure 3, padding and cropping, where dropout lies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedbrats.models.networks.dr_unet104 import STACKS, DRUNet, _cropped, _padded, dr_unet104
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, parameters_with_two_names
from tests.models.slice_checks import (
    is_certain_in_eval_only,
    largest_difference_in_channels_last,
    losses_of_steps,
    main_path,
    shapes_through,
)


def small(**arguments: float) -> DRUNet:
    torch.manual_seed(0)
    return dr_unet104(width=8, stacks=(1,) * 6, **arguments)  # type: ignore[arg-type]


def test_has_104_convolutions_on_the_main_path() -> None:
    with torch.device("meta"):
        network = dr_unet104()
    names = main_path(network, "shortcut", (64, 64))
    bottlenecks = [f"encoder.{level}.{block}" for level, stack in enumerate(STACKS) for block in range(stack)]
    assert len(bottlenecks) == 31
    expected = [block for block in bottlenecks for _ in range(3)]
    expected += [f"decoder.{level}.block" for level in range(5) for _ in range(2)]
    assert [name.partition(".path")[0] for name in names] == [*expected, "head.2"]
    assert len(names) == 104
    # Not counted: a shortcut at each of six encoder and five decoder levels, and five transposed convolutions.
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 104 + 11
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in network.modules()) == 5


def bottleneck(inputs: int, width: int, raw: bool = False) -> int:
    """Parameters by hand: three convolutions, three norms (the raw image has two), shortcut where the width changes."""
    inner = width // 4
    shortcut = inputs * width if inputs != width else 0
    return inputs * inner + 9 * inner**2 + inner * width + (0 if raw else 2 * inputs) + 4 * inner + shortcut


def test_number_of_parameters() -> None:
    # The paper prints none.
    expected, inputs = 0, 4
    for level, stack in enumerate(STACKS):
        width = 64 * 2**level
        expected += bottleneck(inputs, width, raw=level == 0) + (stack - 1) * bottleneck(width, width)
        inputs = width
    for width in (1024, 512, 256, 128, 64):
        out = width // 2
        expected += 9 * inputs * width  # transposed
        expected += 9 * 2 * width * out + 9 * out * out + 2 * width * out + 2 * (2 * width + out)
        inputs = out
    expected += 2 * 32 + 32 * 4 + 4
    with torch.device("meta"):
        assert count(dr_unet104()) == expected == 76_383_172


def test_shapes_of_a_brats_slice() -> None:
    def levels(network: nn.Module) -> list[nn.Module]:
        return [*network.encoder, *(m for up in network.decoder for m in (up.up, up.block))]  # type: ignore

    assert shapes_through(dr_unet104, levels, (240, 240)) == [
        ((4, 240, 240), (64, 240, 240)),
        ((64, 240, 240), (128, 120, 120)),
        ((128, 120, 120), (256, 60, 60)),
        ((256, 60, 60), (512, 30, 30)),
        ((512, 32, 32), (1024, 16, 16)),  # padded
        ((1024, 16, 16), (2048, 8, 8)),
        ((2048, 8, 8), (1024, 16, 16)),
        ((2048, 16, 16), (512, 16, 16)),
        ((512, 16, 16), (512, 32, 32)),
        ((1024, 30, 30), (256, 30, 30)),  # cropped
        ((256, 30, 30), (256, 60, 60)),
        ((512, 60, 60), (128, 60, 60)),
        ((128, 60, 60), (128, 120, 120)),
        ((256, 120, 120), (64, 120, 120)),
        ((64, 120, 120), (64, 240, 240)),
        ((128, 240, 240), (32, 240, 240)),
    ]


def test_padding_is_zeros_all_around_and_cropping_takes_it_back() -> None:
    level4 = torch.rand(1, 2, 30, 29) + 1
    padded = _padded(level4)
    assert padded.shape == (1, 2, 32, 32)
    torch.testing.assert_close(padded[:, :, 1:31, 1:30], level4)
    assert (padded > 0).sum() == level4.numel()
    torch.testing.assert_close(_cropped(padded, level4), level4)
    assert _padded(torch.zeros(1, 2, 8, 12)).shape == (1, 2, 8, 12)


@pytest.mark.parametrize("sides", [(40, 48), (56, 64), (72, 240)])
def test_logits_lie_on_the_grid_of_the_slice(sides: tuple[int, int]) -> None:
    with torch.no_grad():
        assert small()(torch.zeros(2, 4, *sides)).shape == (2, 4, *sides)
        assert small(out_channels=3).eval()(torch.zeros(1, 4, *sides)).shape == (1, 3, *sides)


def test_dropout_follows_levels_2_to_5_the_bridge_and_all_decoder_levels_but_the_last() -> None:
    network = small(dropout=0.3)
    found = [name for name, m in network.named_modules() if isinstance(m, nn.Dropout)]
    assert found == [f"encoder.{i}.1" for i in (1, 2, 3, 4, 5)] + [f"decoder.{i}.dropout" for i in range(4)]
    assert all(m.p == 0.3 for m in network.modules() if isinstance(m, nn.Dropout))
    assert is_certain_in_eval_only(network)


def test_norm_and_activation_come_before_the_convolution_but_not_for_the_image() -> None:
    first, second = small().encoder[0][0], small().encoder[1][0]
    assert [type(m) for m in first.path][:2] == [nn.Conv2d, nn.BatchNorm2d]
    assert [type(m) for m in second.path][:4] == [nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Conv2d]
    assert isinstance(first.path[-1], nn.Conv2d)
    # With a path of nothing the block is its shortcut of the raw input: a 1x1 convolution of every second pixel.
    nn.init.zeros_(second.path[-1].weight)
    features = torch.randn(2, 8, 6, 6)
    expected = nn.functional.conv2d(features, second.shortcut[1].weight, stride=2)
    torch.testing.assert_close(second(features), expected)


def test_initialisation_is_he() -> None:
    torch.manual_seed(0)
    weight = dr_unet104(width=32, stacks=(1,) * 6).encoder[5][0].path[6].weight  # 3x3, 256 to 256
    assert weight.shape == (256, 256, 3, 3)
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(dropout=0.0)) < 1e-9


def test_no_strided_1x1_convolution_of_few_channels() -> None:
    # Their backward pass corrupts memory on CPUs with channels last; see the comment in the network.
    strided = [m for m in small().modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    assert not strided


def test_background_starts_at_one_minus_the_prior() -> None:
    start = small(prior=0.04).head[-1].bias.softmax(0)
    torch.testing.assert_close(start.detach(), torch.tensor([0.96, 0.04 / 3, 0.04 / 3, 0.04 / 3]))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[64, 60\]: sides must be multiples of 8; set train"):
        small()(torch.zeros(2, 4, 64, 60))
    with pytest.raises(ValueError, match=r"input sides \[64, 32\]: sides must be 40 or more"):
        small()(torch.zeros(2, 4, 64, 32))
    with pytest.raises(ValueError, match=r"model\.width=6: must be a multiple of 4"):
        dr_unet104(width=6)
    with pytest.raises(ValueError, match=r"model\.stacks=\[1, 1\]: six numbers"):
        dr_unet104(stacks=(1, 1))


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("dr_unet104")
    assert count(network) == 76_383_172
    assert rules == {"patch": [240, 240], "multiple": 8, "planes": ["axial"], "normalise": "clip"}
    network, rules = configured("dr_unet104", "small")
    assert head_modules(network, rules["patch"]) == ("head.2",)
    assert count(network) == 739_064
    assert network(torch.zeros(1, 4, *rules["patch"])).shape == (1, 4, 64, 64)

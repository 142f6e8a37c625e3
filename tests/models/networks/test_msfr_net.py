"""MSFR-Net: three scales, attention by hand, what a block adds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from fedbrats.models.networks.msfr_net import CBAM, MSFER, msfr_net
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, parameters_with_two_names
from tests.models.slice_checks import largest_difference_in_channels_last, losses_of_steps, record_shapes


def small() -> nn.Module:
    torch.manual_seed(0)
    return msfr_net(channels=(8, 16, 24), reduction=4)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def block(before: int, width: int) -> int:
        scales = 9 * (before + 2 * width) * width + 3 * 2 * width  # no bias, two arrays per norm
        attention = 2 * 3 * width * (3 * width // 16) + 2 * 49
        return scales + attention + 3 * width * width + width

    widths = (64, 128, 256, 512, 1024)
    down = sum(block(i, o) for i, o in zip((4, *widths), widths))
    up = sum(4 * 2 * w * w + w + block(2 * w, w) for w in widths[-2::-1])
    with torch.device("meta"):
        assert count(msfr_net()) == down + up + 4 * 64 + 4 == 53_949_878


def test_attention_is_that_of_woo_et_al() -> None:
    torch.manual_seed(0)
    attention, features = CBAM(6, 2), torch.randn(2, 6, 9, 8)
    first, second = attention.channel[0].weight[:, :, 0, 0], attention.channel[2].weight[:, :, 0, 0]

    def perceptron(x: Tensor) -> Tensor:
        return (x @ first.T).clamp(min=0) @ second.T

    flat = features.flatten(2)
    channel = torch.sigmoid(perceptron(flat.mean(2)) + perceptron(flat.max(2).values))
    weighed = features * channel[:, :, None, None]
    maps = torch.stack([weighed.mean(1), weighed.max(1).values], dim=1)
    spatial = torch.sigmoid(conv2d(maps, attention.spatial.weight, padding=3))
    torch.testing.assert_close(attention(features), weighed * spatial)


def test_a_block_adds_the_attention_to_what_it_weighs() -> None:
    torch.manual_seed(0)
    block, features = MSFER(4, 8, 4).eval(), torch.randn(1, 4, 12, 12)
    nn.init.zeros_(block.recalibration.spatial.weight)
    nn.init.zeros_(block.recalibration.channel[2].weight)  # both sigmoids are then one half
    joined = []
    with torch.no_grad():
        x = features
        for scale in block.scales:
            x = scale(x)
            joined.append(x)
        torch.testing.assert_close(block(features), block.last(1.25 * torch.cat(joined, dim=1)))


def test_the_scales_see_three_five_and_seven_pixels() -> None:
    torch.manual_seed(0)
    block, features = MSFER(1, 8, 4).eval(), torch.randn(1, 1, 15, 15)
    changed = features.clone()
    changed[0, 0, 7, 7] += 1
    with torch.no_grad():
        x, y, seen = features, changed, []
        for scale in block.scales:
            x, y = scale(x), scale(y)
            differs = (x != y).any(1)[0]
            seen.append((int(differs.any(0).sum()), int(differs.any(1).sum())))
    assert seen == [(3, 3), (5, 5), (7, 7)]


def test_sides_and_widths_of_every_block() -> None:
    shapes: list = []
    with torch.device("meta"):
        network = msfr_net()
        for block in (*network.encoder, *network.decoder):
            record_shapes(block, shapes)
        assert network(torch.zeros(2, 4, 240, 240)).shape == (2, 4, 240, 240)
    down = [(64, 240), (128, 120), (256, 60), (512, 30), (1024, 15)]
    assert [out for _, out in shapes] == [(w, side, side) for w, side in (*down, *down[-2::-1])]
    assert [before[0] for before, _ in shapes] == [4, 64, 128, 256, 512, 1024, 512, 256, 128]


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small()) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[64, 42\]: sides must be multiples of 4"):
        small()(torch.zeros(1, 4, 64, 42))
    with pytest.raises(ValueError, match=r"model\.channels=\[8\]"):
        msfr_net(channels=[8])
    with pytest.raises(ValueError, match=r"model\.reduction=25: must lie between 1 and three times"):
        msfr_net(channels=[8, 16], reduction=25)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("msfr_net")
    assert (rules["patch"], rules["multiple"], rules["planes"]) == ([240, 240], 16, ["axial"])
    assert count(network) == count(msfr_net())
    network, rules = configured("msfr_net", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 200_000 < count(network) < 1_500_000

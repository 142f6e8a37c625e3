"""MAAB U-Net: its layers counted by hand, the block and its attention worked out, the pyramid, the loss."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.nn.functional import interpolate

from fedbrats.losses.dice import Dice
from fedbrats.models.networks.maab_unet import MAAB, Attention, MAABUNet, maab_unet
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)
from tests.tiny import ROOT


def small(**arguments: float) -> MAABUNet:
    torch.manual_seed(0)
    return maab_unet(filters=8, **arguments)  # type: ignore[arg-type]


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def conv(before: int, width: int, kernel: int = 3) -> int:
        return kernel**3 * before * width + width

    def attention(width: int, gate: int = 0) -> int:  # the norm's two numbers per channel
        return conv(width, width, 1) + bool(gate) * conv(gate, width, 1) + 2 * width + conv(width, 1, 1)

    def block(before: int, width: int, level: int) -> int:
        return conv(before, width) + level * (conv(width, width) + 2 * width) + attention(width)

    down = block(4, 16, 1) + block(16, 16, 2) + block(16, 32, 3) + block(32, 64, 4) + block(64, 64, 4)
    up = conv(64, 32, 2) + attention(32, 64) + block(64, 32, 3)
    up += conv(32, 16, 2) + attention(16, 32) + block(32, 16, 2)
    pyramid = conv(64, 64) + conv(32, 32) + block(16 + 32 + 64, 64, 1) + conv(64, 3)
    with torch.device("meta"):
        assert count(maab_unet()) == down + up + pyramid == 1_834_093


def test_levels_add_dilation_rates_in_the_printed_order() -> None:
    def rates(block: MAAB) -> list[int]:
        return [branch[2].dilation[0] for branch in block.atrous]

    network = small()
    blocks = [m for m in network.modules() if isinstance(m, MAAB)]
    widths = [(block.first.out_channels, rates(block)) for block in blocks]
    assert widths == [  # filters of Figure 1, halved
        *((8, [1]), (8, [1, 2]), (16, [1, 2, 4]), (32, [1, 2, 4, 8]), (32, [1, 2, 4, 8])),
        *((16, [1, 2, 4]), (8, [1, 2]), (32, [1])),
    ]


def test_a_block_adds_every_level_to_the_first_convolution_before_the_attention() -> None:
    torch.manual_seed(0)
    block, features = MAAB(4, 8, 3), torch.randn(1, 4, 9, 8, 7)
    with torch.no_grad():
        first = block.first(features)
        parts = [branch[2](branch[0](first).clamp(min=0)) for branch in block.atrous]
        torch.testing.assert_close(block(features), block.attention(first + parts[0] + parts[1] + parts[2]))


def test_attention_weighs_voxels_by_both_features() -> None:
    torch.manual_seed(0)
    block, skip, gate = Attention(8, 16), torch.randn(1, 8, 4, 6, 8), torch.randn(1, 16, 2, 3, 4)
    norm, _, score, _ = block.weigh
    with torch.no_grad():
        seen = block.of_x(skip) + interpolate(block.of_gate(gate), (4, 6, 8), mode="trilinear")
        weight = score(norm(seen).clamp(min=0)).sigmoid()
        assert weight.shape == (1, 1, 4, 6, 8)
        torch.testing.assert_close(block(skip, gate), weight * skip)
        assert not torch.allclose(block(skip, gate), block(skip, -gate))


def test_skips_are_attended_with_the_deeper_features_before_their_upsampling() -> None:
    network, seen = small().eval(), []
    for attention in (network.skip_middle, network.skip_top):
        attention.register_forward_hook(lambda _, given, __: seen.append([tuple(g.shape[1:]) for g in given]))
    with torch.no_grad():
        network(torch.randn(1, 4, 8, 16, 12))
    assert seen == [[(16, 4, 8, 6), (32, 2, 4, 3)], [(8, 8, 16, 12), (16, 4, 8, 6)]]


def test_the_last_block_sees_a_pyramid_of_three_levels() -> None:
    network, made, seen = small().eval(), [], []
    for module in (network.back_top, network.from_middle, network.from_deep):
        module.register_forward_hook(lambda _, __, out: made.append(out))
    network.last.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        network(torch.randn(1, 4, 8, 16, 12))
    top, middle, deep = made
    repeated = [
        m.repeat_interleave(f, 2).repeat_interleave(f, 3).repeat_interleave(f, 4)
        for m, f in ((top, 1), (middle, 2), (deep, 4))
    ]
    assert torch.equal(seen[0], torch.cat(repeated, dim=1))


def test_dropout_takes_voxels_of_the_input_in_training_only() -> None:
    network, seen = small(dropout=0.2), []
    network.top.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    images = torch.ones(1, 4, 24, 24, 24)
    with torch.no_grad():
        network(images)
        network.eval()(images)
    assert abs(float((seen[0] == 0).float().mean()) - 0.2) < 0.01
    assert torch.equal(seen[1], images)


def test_the_loss_weighs_the_regions_as_equation_3_does() -> None:
    loss = instantiate(OmegaConf.load(ROOT / "conf" / "loss" / "dice_region_weights.yaml"))
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 6, 6, 6), (torch.rand(2, 3, 6, 6, 6) > 0.7).float()
    wt, tc, et = (Dice()(logits[:, i : i + 1], target[:, i : i + 1]) for i in range(3))
    torch.testing.assert_close(loss(logits, target), 0.34 * et + 0.33 * tc + 0.33 * wt)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16), lr=0.001)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4; set train.patch"
    ):
        small()(torch.zeros(1, 4, 8, 8, 6))
    for filters in (0, 12):
        with pytest.raises(ValueError, match=rf"model\.filters={filters}: must be a multiple of 8"):
            maab_unet(filters=filters)
    with pytest.raises(ValueError, match=r"model\.dropout=1: must lie in \[0, 1\)"):
        maab_unet(dropout=1)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("maab_unet")
    assert count(network) == 1_834_093
    assert rules == {"patch": [72, 72, 72], "multiple": 4, "normalise": "zscore"}
    network, rules = configured("maab_unet", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert isinstance(network, nn.Module)
    assert 100_000 < count(network) < 1_000_000

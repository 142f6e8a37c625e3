"""HarDNet-BTS: links and widths of the blocks, soft pooling, an output at every level."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedbrats.models.networks.hardnet_bts import (
    HarDNetBlock,
    SoftPool,
    hardnet_bts,
    harmonic_links,
    harmonic_width,
)
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
    return hardnet_bts(stem=(4, 8), growth=(4, 4), layers=(4, 4), channels=(12, 16))


def test_links_are_those_of_the_harmonic_pattern() -> None:
    # Chao et al., section 3: layer l reads l - 2^n for every 2^n that divides it.
    assert [harmonic_links(layer) for layer in range(1, 9)] == [
        *([0], [1, 0], [2], [3, 2, 0]),
        *([4], [5, 4], [6], [7, 6, 4, 0]),
    ]
    assert harmonic_links(16) == [15, 14, 12, 8, 0]


def test_widths_grow_with_the_power_of_two_that_divides_the_layer() -> None:
    # By hand, rounded to even: 14, 14 * 1.7 = 23.8, 14 * 1.7^2 = 40.5, 14 * 1.7^3 = 68.8.
    assert [harmonic_width(layer, 14, 1.7) for layer in (1, 2, 4, 8, 7, 6)] == [14, 24, 40, 68, 14, 24]


def test_blocks_have_the_widths_of_the_release() -> None:
    # Its deep supervision reads 320 channels at the deepest level and 328, 262 and 124 in the decoder.
    with torch.device("meta"):
        network = hardnet_bts()
    assert [block.width for block in network.encoder] == [124, 262, 328, 328]
    assert [head.in_channels for head in network.heads] == [320, 328, 262, 124]
    stem = [layer[0] for layer in network.stem]
    assert [(layer.out_channels, layer.kernel_size, layer.stride[0]) for layer in stem] == [
        (32, (3, 3, 3), 2),  # section 2.1
        (64, (3, 3, 3), 1),
    ]
    assert [layer[0].out_channels for layer in network.narrow] == [128, 256, 320, 320]
    assert [len(block.layers) for block in network.encoder] == [8, 16, 16, 16]
    assert [len(block.layers) for block in network.decoder] == [16, 16, 8]


def block_parameters(before: int, growth: int, layers: int) -> tuple[int, int]:
    """Parameters and width of a block, counted apart from the network: 27 weights per pair, 2 per norm."""
    widths, total = [before], 0
    for layer in range(1, layers + 1):
        power = (layer & -layer).bit_length() - 1
        widths.append(int(growth * 1.7**power + 1) // 2 * 2)
        read = sum(widths[layer - 2**n] for n in range(power + 1))
        total += 27 * read * widths[-1] + 2 * widths[-1]
    return total, sum(widths[1::2]) + (widths[-1] if layers % 2 == 0 else 0)


def test_number_of_parameters() -> None:
    # The paper prints none; this one by hand.
    def layer(before: int, width: int, kernel: int) -> int:
        return kernel**3 * before * width + 2 * width

    expected, before, skips = layer(4, 32, 3) + layer(32, 64, 3), 64, []
    for growth, layers, width in zip((14, 16, 20, 20), (8, 16, 16, 16), (128, 256, 320, 320)):
        inside, out = block_parameters(before, growth, layers)
        expected += inside + layer(out, width, 1)
        skips.append(out)
        before = width
    expected += 320 * 3 + 3
    for growth, layers, skip in zip((20, 16, 14), (16, 16, 8), skips[-2::-1]):
        inside, out = block_parameters((before + skip) // 2, growth, layers)
        expected += layer(before + skip, (before + skip) // 2, 1) + inside + out * 3 + 3
        before = out
    with torch.device("meta"):
        assert count(hardnet_bts()) == expected == 23_690_702


def test_a_block_hands_on_its_odd_layers_and_the_last() -> None:
    torch.manual_seed(0)
    block, made = HarDNetBlock(4, 4, 4, 1.7), []
    for layer in block.layers:
        layer.register_forward_hook(lambda _, __, out: made.append(out))
    features = torch.randn(2, 4, 4, 4, 4)
    out = block(features)
    assert torch.equal(out, torch.cat([made[0], made[2], made[3]], dim=1))
    assert out.shape[1] == block.width == 4 + 4 + 12  # 4 * 1.7^2 = 11.6


def test_soft_pooling_is_the_mean_weighted_by_exponentials() -> None:
    pool, values = SoftPool(), torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7])
    by_hand = sum(v * math.exp(v) for v in range(8)) / sum(math.exp(v) for v in range(8))
    assert float(pool(values.view(1, 1, 2, 2, 2))) == pytest.approx(by_hand)
    torch.testing.assert_close(pool(torch.full((1, 1, 2, 2, 2), 200.0)), torch.full((1, 1, 1, 1, 1), 200.0))
    blocks = torch.arange(8.0).view(1, 1, 2, 2, 2).repeat_interleave(2, 2)
    blocks = blocks.repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert torch.equal(pool(blocks), torch.arange(8.0).view(1, 1, 2, 2, 2))  # each window its own


def test_training_returns_one_output_per_level_at_full_size_and_evaluation_the_first() -> None:
    with torch.device("meta"):
        shapes = [tuple(logits.shape) for logits in hardnet_bts()(torch.zeros(2, 4, 64, 32, 48))]
    assert shapes == [(2, 3, 64, 32, 48)] * 4
    network, images = small(), torch.randn(2, 4, 8, 16, 8)
    for module in network.modules():
        module.train(not isinstance(module, nn.BatchNorm3d))  # its statistics are not what is compared
    with torch.no_grad():
        training = network(images)
        evaluation = network.eval()(images)
    assert evaluation.shape == (2, 3, 8, 16, 8)
    torch.testing.assert_close(training[0], evaluation)
    assert not torch.allclose(training[1], evaluation, atol=1e-3)


def test_activation_is_mish_and_pooling_soft() -> None:
    modules = list(small().modules())
    assert any(isinstance(m, nn.Mish) for m in modules)
    assert any(isinstance(m, SoftPool) for m in modules)
    assert not any(isinstance(m, nn.ReLU | nn.LeakyReLU | nn.MaxPool3d | nn.ConvTranspose3d) for m in modules)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_every_output_starts_at_the_prior() -> None:
    for head in small().heads:
        torch.testing.assert_close(head.bias.detach(), torch.full((3,), -2.1972246))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4"):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match=r"model\.stem has two widths, .* growth=\[4, 4\], layers=\[4\]"):
        hardnet_bts(growth=(4, 4), layers=(4,), channels=(8, 8))
    with pytest.raises(ValueError, match=r"multiplier=0\.5 must be 1 or more"):
        hardnet_bts(multiplier=0.5)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("hardnet_bts")
    assert count(network) == 23_690_702
    assert rules == {"patch": [128, 128, 128], "multiple": 16, "normalise": "minmax"}
    network, rules = configured("hardnet_bts", "small")
    assert head_modules(network, rules["patch"]) == ("heads.0", "heads.1", "heads.2")
    assert 50_000 < count(network) < 1_500_000
    assert [tuple(o.shape[2:]) for o in network(torch.zeros(2, 4, *rules["patch"]))] == [(32,) * 3] * 3

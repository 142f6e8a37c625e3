"""DeepSeg in 3D: its layers counted by hand, what is joined, dropout at the deepest block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.deepseg import DeepSeg, deepseg
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def small(dropout: float = 0.0) -> DeepSeg:
    torch.manual_seed(0)
    return deepseg(channels=(8, 16, 32), dropout=dropout)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def block(before: int, width: int) -> int:  # two 3x3x3 with bias, and BatchNorm's two numbers per channel
        return 27 * (before + width) * width + 6 * width

    widths = (32, 64, 128, 256, 512)
    encoder = sum(block(i, o) for i, o in zip((4, *widths), widths))
    decoder = sum(8 * 2 * w * w + w + block(2 * w, w) for w in widths[:-1])
    with torch.device("meta"):
        assert count(deepseg()) == encoder + decoder + 3 * 32 + 3 == 22_583_875


def test_five_blocks_are_joined_at_the_printed_sides() -> None:
    made = []
    with torch.device("meta"):
        network = deepseg().eval()
        for block in network.encoder:
            block.register_forward_hook(lambda _, __, out: made.append(tuple(out.shape[1:3])))
        assert network(torch.zeros(1, 4, 128, 128, 128)).shape == (1, 3, 128, 128, 128)
    assert made == [(32, 128), (64, 64), (128, 32), (256, 16), (512, 8)]


def test_levels_up_join_the_skip_and_what_comes_up() -> None:
    network, seen = small().eval(), {}
    watched = {"skip": network.encoder[0], "up": network.up[-1], "joined": network.decoder[-1]}
    for name, module in watched.items():
        module.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given[0], out)}))
    with torch.no_grad():
        network(torch.randn(1, 4, 8, 8, 12))
    torch.testing.assert_close(seen["joined"][0], torch.cat([seen["skip"][1], seen["up"][1]], dim=1))


def test_dropout_is_at_the_deepest_block_alone_and_in_training_alone() -> None:
    network, images = small(dropout=0.5), torch.randn(2, 4, 8, 8, 8)
    dropped = [name for name, m in network.named_modules() if isinstance(m, nn.Dropout)]
    assert dropped == ["dropout"]
    shares = []
    network.dropout.register_forward_hook(
        lambda _, given, out: shares.append(
            float(((out == 0) & (given[0] != 0)).sum() / (given[0] != 0).sum())
        )
    )
    with torch.no_grad():
        network.train()(images)
        torch.testing.assert_close(network.eval()(images), network(images))
    assert shares[0] == pytest.approx(0.5, abs=0.15)
    assert shares[1:] == [0, 0]


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4"):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match=r"model\.channels=\[8\]"):
        deepseg(channels=[8])
    with pytest.raises(ValueError, match=r"model\.dropout=1"):
        deepseg(dropout=1)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("deepseg")
    assert count(network) == 22_583_875
    assert rules == {"patch": [128, 128, 128], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("deepseg", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 50_000 < count(network) < 200_000

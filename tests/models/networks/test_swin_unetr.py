"""Swin UNETR: printed settings and size, and what wraps MONAI's network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.swin_unetr import swin_unetr
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)

SIDES = (64, 32, 32)


def small(use_checkpoint: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return swin_unetr(
        feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), use_checkpoint=use_checkpoint
    )


def test_size_is_within_one_per_cent_of_the_printed_one() -> None:
    with torch.device("meta"):
        network = swin_unetr()
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert count(network) == 62_191_941  # MONAI 1.6.1
    assert abs(count(network) / 61.98e6 - 1) < 0.01  # Table 1


def test_settings_are_those_of_table_1() -> None:
    with torch.device("meta"):
        network = swin_unetr()
    stages = [getattr(network.swinViT, f"layers{i}")[0] for i in (1, 2, 3, 4)]
    assert [len(stage.blocks) for stage in stages] == [2, 2, 2, 2]
    assert [stage.blocks[0].attn.num_heads for stage in stages] == [3, 6, 12, 24]
    assert [tuple(stage.window_size) for stage in stages] == [(7, 7, 7)] * 4
    assert network.out.conv.conv.weight.shape == (3, 48, 1, 1, 1)


def test_other_numbers_of_outputs() -> None:
    with torch.device("meta"):
        assert swin_unetr(out_channels=1, feature_size=12)(torch.zeros(1, 4, 64, 64, 32)).shape == (
            1,
            1,
            64,
            64,
            32,
        )


@pytest.mark.slow
def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, SIDES, steps=6)
    assert losses[-1] < 0.8 * losses[0]
    assert not parameters_with_two_names(network)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), SIDES) < 1e-9


def test_checkpointing_changes_nothing_but_memory() -> None:
    images = torch.randn(1, 4, *SIDES)
    gradients = []
    for use_checkpoint in (False, True):
        network = small(use_checkpoint)
        assert network.swinViT.layers1[0].blocks[0].use_checkpoint is use_checkpoint
        network(images).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_outputs_start_at_the_prior() -> None:
    torch.testing.assert_close(small().out.conv.conv.bias.detach(), torch.full((3,), -2.1972246))


def test_sides_that_do_not_fit_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[64, 48, 32\]: sides must be multiples of 32; set train.patch"
    ):
        small()(torch.zeros(1, 4, 64, 48, 32))
    with pytest.raises(
        ValueError, match=r"input sides \[32, 32, 32\]: one voxel is left .* must be 64 or more"
    ):
        small()(torch.zeros(1, 4, 32, 32, 32))


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("swin_unetr")
        assert count(network) == 62_191_941
        assert rules == {"patch": [128, 128, 128], "multiple": 32, "normalise": "zscore"}
        network, rules = configured("swin_unetr", "small")
        assert head_modules(network, rules["patch"]) == ("out.conv.conv",)
        assert network.train()(torch.zeros(1, 4, *rules["patch"])).shape == (1, 3, *rules["patch"])
    assert count(network) < 4_000_000

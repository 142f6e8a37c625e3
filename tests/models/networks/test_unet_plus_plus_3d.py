"""UNet++ in 3D: the published size by the same count in 2D, and which node joins which."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fedbrats.models.networks.unet_plus_plus_3d import UNetPlusPlus3D, unet_plus_plus_3d
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def nodes_by_hand(widths: Sequence[int], dimensions: int, before: int, norm: int) -> int:
    """Every node's two 3x3 convolutions (bias, `norm` numbers per channel) and the transposed one into it, head too."""

    def two(i: int, o: int) -> int:
        return 3**dimensions * (i + o) * o + (2 + 2 * norm) * o

    found = sum(two(i, o) for i, o in zip((before, *widths), widths)) + widths[0] + 1
    for joined in range(1, len(widths)):
        for w, deeper in pairwise(widths[: len(widths) - joined + 1]):
            found += 2**dimensions * deeper * w + w + two((joined + 1) * w, w)
    return found


def small() -> UNetPlusPlus3D:
    torch.manual_seed(0)
    return unet_plus_plus_3d(channels=(4, 8, 16, 24))


def test_size_is_that_of_the_published_network_in_3d() -> None:
    # Zhou et al. (DLMIA 2018): 9.04 million, in 2D, five levels, no norm.
    assert round(nodes_by_hand((32, 64, 128, 256, 512), 2, 3, norm=0) / 1e6, 2) == 9.04
    with torch.device("meta"):
        found = count(unet_plus_plus_3d())
    # Three outputs where the hand has one, and no more.
    assert found == nodes_by_hand((32, 64, 128, 256), 3, 4, norm=2) - 33 + 99 == 6_395_587


def test_every_node_joins_its_row_and_what_is_below() -> None:
    network, given, made = small(), {}, {}

    def watch(key: tuple[bool, str], module: nn.Module) -> None:
        def keep(_: nn.Module, seen: tuple[Tensor, ...], out: Tensor) -> None:
            given[key], made[key] = seen[0], out

        module.register_forward_hook(keep)

    for kind in (network.nodes, network.up):
        for name, module in kind.items():
            watch((kind is network.up, name), module)
    with torch.no_grad():
        out = network(torch.randn(1, 4, 16, 8, 24))
    assert sorted(network.nodes) == ["0_0", "0_1", "0_2", "0_3", "1_0", "1_1", "1_2", "2_0", "2_1", "3_0"]
    for name in network.up:
        level, joined = map(int, name.split("_"))
        row = [made[False, f"{level}_{j}"] for j in range(joined)]
        torch.testing.assert_close(given[False, name], torch.cat([*row, made[True, name]], dim=1))
        assert given[True, name] is made[False, f"{level + 1}_{joined - 1}"]
    torch.testing.assert_close(out, network.head(made[False, "0_3"]))


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 16)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16), steps=6)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


def test_the_output_starts_at_the_prior() -> None:
    assert unet_plus_plus_3d(channels=(4, 8), prior=0.2).head.bias.sigmoid().tolist() == pytest.approx(
        [0.2] * 3
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[16, 16, 12\]: sides must be multiples of 8"):
        small()(torch.zeros(1, 4, 16, 16, 12))
    with pytest.raises(ValueError, match=r"model\.channels=\[8\]"):
        unet_plus_plus_3d(channels=[8])
    with pytest.raises(ValueError, match=r"model\.convolutions=0"):
        unet_plus_plus_3d(convolutions=0)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("unet_plus_plus_3d")
    assert count(network) == 6_395_587
    assert rules == {"patch": [96, 96, 96], "multiple": 8, "normalise": "zscore"}
    network, rules = configured("unet_plus_plus_3d", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 50_000 < count(network) < 200_000

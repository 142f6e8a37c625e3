"""nnSegNet: printed size, shapes, and indices that come back to the level they were taken at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbrats.models.networks.nnsegnet import nnsegnet
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
    return nnsegnet(channels=(8, 16, 24))


def test_has_the_printed_number_of_parameters() -> None:
    with torch.device("meta"):
        assert count(nnsegnet()) == 27_663_648  # Table 1
        assert (
            count(nnsegnet(convolutions=1)) == 12_949_152
        )  # not the 17.4 million of section 4.2, as documented


def test_training_returns_a_list_from_full_size_down_and_evaluation_one_tensor() -> None:
    with torch.device("meta"):
        network, images = nnsegnet(), torch.zeros(1, 4, 64, 32, 96)
    shapes = [tuple(logits.shape) for logits in network(images)]
    assert shapes == [(1, 3, 64 // s, 32 // s, 96 // s) for s in (1, 2, 4, 8, 16)]
    assert network.eval()(images).shape == (1, 3, 64, 32, 96)


def test_every_level_unpools_with_its_own_indices() -> None:
    network = small()
    taken: list[Tensor] = []
    used: list[Tensor] = []
    network.pool.register_forward_hook(lambda _, __, out: taken.append(out[1]))
    network.unpool.register_forward_hook(lambda _, given, __: used.append(given[1]))
    network(torch.randn(1, 4, 16, 8, 8))
    assert len(taken) == 2
    assert all(a is b for a, b in zip(taken, used[::-1], strict=True))
    assert not any(isinstance(m, nn.ConvTranspose3d) for m in network.modules())


def test_unpooled_maxima_are_where_they_were() -> None:
    network = small()
    seen: list[tuple[Tensor, Tensor]] = []
    network.unpool.register_forward_hook(lambda _, given, out: seen.append((given[1], out)))
    with torch.no_grad():
        network(torch.randn(1, 4, 8, 8, 16))
    indices, unpooled = seen[-1]
    elsewhere = torch.ones_like(unpooled).flatten(2).scatter_(2, indices.flatten(2), 0.0)
    assert not (unpooled.flatten(2) * elsewhere).any()
    assert unpooled.any()


def test_evaluation_is_the_first_output_of_training() -> None:
    network, images = small(), torch.randn(1, 4, 16, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.train()(images)[0], network.eval()(images))


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
def test_memory_format_does_not_matter(device: str) -> None:
    # Indices count voxels, so they must not depend on how the voxels lie in memory.
    assert largest_difference_in_channels_last(small(), (8, 16, 12), device) < 1e-9


def test_deepest_level_has_its_own_width_and_hands_on_that_of_the_level_above() -> None:
    assert [m.weight.shape[:2] for m in small().deepest.modules() if isinstance(m, nn.Conv3d)] == [
        (24, 16),
        (16, 24),
    ]


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_sides_that_do_not_fit_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4; set train.patch"
    ):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match="one voxel is left at the deepest level"):
        small()(torch.zeros(1, 4, 4, 4, 4))


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(ValueError, match=r"model\.channels=\[8\]"):
        nnsegnet(channels=[8])


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("nnsegnet")
    assert count(network) == 27_663_648
    assert rules == {"patch": [128, 128, 128], "multiple": 32, "normalise": "zscore"}
    network, rules = configured("nnsegnet", "small")
    assert head_modules(network, rules["patch"]) == ("heads.0", "heads.1", "heads.2")
    assert 200_000 < count(network) < 1_500_000
    assert rules["multiple"] == 8
    assert [tuple(o.shape[2:]) for o in network(torch.zeros(1, 4, *rules["patch"]))] == [
        (s, s, s) for s in (32, 16, 8)
    ]

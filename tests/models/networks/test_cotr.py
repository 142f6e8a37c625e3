"""CoTr: the published size, attention that looks where it says, positions by hand, four outputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedbrats.models.networks.cotr import CoTr, DeformableAttention, cotr, places_of, waves
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def small(**settings: object) -> CoTr:
    torch.manual_seed(0)
    return cotr(channels=(16, 16, 24, 24), blocks=(1, 1, 1), layers=1, heads=4, **settings)


def test_size_is_the_published_one() -> None:
    """Xie et al. (MICCAI 2021): 41.9 million, 32.6 without the transformer; one channel, 12 classes."""
    with torch.device("meta"):
        theirs = cotr(in_channels=1, out_channels=12)
    transformer = count(theirs.layers) + theirs.levels.numel()
    assert [round(n / 1e6, 1) for n in (count(theirs), count(theirs) - transformer)] == [41.9, 32.6]
    layer = 144 * 385 + 48 * 385 + 2 * 384 * 385 + 4 * 384 + 384 * 1536 * 2 + 1536 + 384
    assert transformer == 6 * layer + 2 * 384
    # Three channels more in the first convolution of 7x7x7, nine classes less at four heads.
    with torch.device("meta"):
        assert count(cotr()) == count(theirs) + 3 * 343 * 64 - 9 * (384 + 192 + 64 + 64 + 4) == 41_930_572


def test_maps_have_the_sides_of_the_paper() -> None:
    made = []
    with torch.device("meta"):
        network, images = cotr(), torch.zeros(1, 4, 128, 128, 128)
        for module in (network.stem, *network.stages):
            module.register_forward_hook(lambda _, __, out: made.append(tuple(out.shape[1:3])))
        outputs = [tuple(logits.shape) for logits in network(images)]
        assert network.eval()(images).shape == (1, 3, 128, 128, 128)
    assert made[:4] == [(64, 64), (192, 32), (384, 16), (384, 8)]
    assert outputs == [(1, 3, s, s, s) for s in (128, 64, 32, 16)]
    assert [len(stage) for stage in network.stages] == [3, 3, 2]


def plain_attention(width: int, maps: int = 1) -> DeformableAttention:
    """What is seen is handed on as it is; all places are the voxel itself."""
    attention = DeformableAttention(width, maps, heads=2)
    for layer in (attention.values, attention.output):
        nn.init.eye_(layer.weight)
    nn.init.zeros_(attention.offsets.bias)
    return attention


def test_a_voxel_looks_at_its_own_place() -> None:
    sides, tokens = (2, 3, 4), torch.randn(2, 24, 4)
    attention = plain_attention(4)
    with torch.no_grad():
        found = attention(tokens, tokens, [sides], places_of(sides, torch.device("cpu")))
    torch.testing.assert_close(found, tokens)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_offset_is_counted_in_voxels_of_its_axis(axis: int) -> None:
    """All places one voxel further along an axis: the neighbour's value, nothing behind the edge."""
    sides, attention = (3, 4, 5), plain_attention(2)
    volume = torch.randn(1, 2, *sides)
    with torch.no_grad():
        attention.offsets.bias.view(-1, 3)[:, axis] = 1.0
        tokens = volume.flatten(2).transpose(1, 2)
        found = attention(tokens, tokens, [sides], places_of(sides, torch.device("cpu")))
    expected = torch.zeros_like(volume)
    expected.movedim(axis + 2, 0)[:-1] = volume.movedim(axis + 2, 0)[1:]
    torch.testing.assert_close(found.transpose(1, 2).reshape(volume.shape), expected)


def test_a_voxel_looks_at_the_same_place_of_the_other_map() -> None:
    """A map of 4x4x4 and one of 2x2x2 that is constant in its parts: at a quarter and three quarters of each axis."""
    large, little = torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 2, 2, 2, 2)
    little[:, :, 1, 0, 1] = 6.0
    tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in (large, little)], dim=1)
    sides = [(4, 4, 4), (2, 2, 2)]
    places = torch.cat([places_of(side, torch.device("cpu")) for side in sides])
    with torch.no_grad():
        found = plain_attention(2, maps=2)(tokens, tokens, sides, places)
    seen = found[0, 64:, 0].reshape(2, 2, 2)  # the little map's voxels: half of what they see is their own
    assert seen[1, 0, 1] == pytest.approx(3.0)
    assert float(seen.sum()) == pytest.approx(3.0)
    # A voxel of the large map at (2.5, 0.5, 3.5) / 4 lies at (0.75, -0.25, 1.25) of the little one: 0.75 of it along
    # each axis, as nothing is behind the edge.
    assert found[0, :64, 0].reshape(4, 4, 4)[2, 0, 3] == pytest.approx(3.0 * 0.75**3)


def test_attention_starts_along_a_direction_per_head() -> None:
    bias = DeformableAttention(12, 2, 6).offsets.bias.detach().view(6, 2, 4, 3)
    torch.testing.assert_close(bias[0, 0], torch.tensor([[1.0, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]))
    torch.testing.assert_close(bias.abs().amax(-1)[:, 0], torch.arange(1.0, 5).expand(6, 4))
    torch.testing.assert_close(bias[:, 0], bias[:, 1])


def test_positions_by_hand() -> None:
    """A third of 12 channels per axis: waves of one and of a hundredth of a turn."""
    found = waves(torch.tensor([[0.25, 0.0, 0.5]]), 12)[0].reshape(3, 2, 2)
    expected = [[math.pi / 2, math.pi / 200], [0.0, 0.0], [math.pi, math.pi / 100]]
    for axis, angles in enumerate(expected):
        for rate, angle in enumerate(angles):
            assert found[axis, rate].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-5)
    sides = (3, 5, 2)
    many = waves(places_of(sides, torch.device("cpu")), 12)
    assert len(torch.unique(many.round(decimals=4), dim=0)) == 30


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (16, 32, 16)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small(dropout=0.0)
    losses = losses_of_steps(network, (32, 32, 32), steps=6, lr=0.005)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


def test_every_head_starts_at_the_prior() -> None:
    for head in small().heads:
        torch.testing.assert_close(head.bias.detach(), torch.full((3,), -2.1972246))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[32, 32, 24\]: sides must be multiples of 16"):
        small()(torch.zeros(1, 4, 32, 32, 24))
    for settings, said in (
        ({"channels": [8, 24, 24, 24]}, r"model\.channels=\[8, 24, 24, 24\]: four widths of 16"),
        ({"channels": [16, 24, 24, 48]}, "the last two equal"),
        ({"heads": 5}, "multiple of 6 and of 5 heads"),
        ({"blocks": [1, 1]}, r"model\.blocks=\[1, 1\]"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
    ):
        with pytest.raises(ValueError, match=said):
            cotr(**settings)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("cotr")
    assert count(network) == 41_930_572
    assert rules == {"patch": [128, 128, 128], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("cotr", "small")
    assert head_modules(network, rules["patch"]) == tuple(f"heads.{i}" for i in range(4))
    assert 100_000 < count(network) < 1_000_000

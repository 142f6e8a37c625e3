"""Supervoxels within a network: those of the command, their borders, and quantiles as numpy has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fedbrats.inference import supervoxels as command
from fedbrats.models.supervoxels import QUANTILES, neighbours, quantiles, supervoxels

GRID = (4, 3, 4)
CELL = 4
COUNT = 48


def case() -> tuple[Tensor, Tensor]:
    """Two smooth images [2, 4, 16, 12, 16], and a brain that does not fill them."""
    rng = np.random.default_rng(0)
    images = [gaussian_filter(rng.normal(size=(16, 12, 16)), 1.5) * 5 for _ in range(8)]
    brain = np.zeros((2, 16, 12, 16), bool)
    brain[0, 1:15, 1:, :13] = brain[1, 5:, 2:9, 2:] = True
    return torch.from_numpy(np.stack(images)).float().reshape(2, 4, 16, 12, 16), torch.from_numpy(brain)


@pytest.mark.parametrize("rounds", [1, 5])
def test_they_are_those_of_the_command(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same compactness everywhere, and before pieces are told apart; a voxel may be as near to two seeds."""
    monkeypatch.setattr(command, "_connected", lambda labels, least: labels)
    images, brain = case()
    found = supervoxels(images, brain, CELL, 0.5, rounds)
    for image, mask, owner in zip(images.numpy(), brain.numpy(), found.numpy(), strict=True):
        expected = command.oversegment(image, mask, (CELL,) * 3, 0.5, np.inf, rounds)
        assert np.mean(owner[mask] + 1 == expected[mask]) > 0.999
        assert (owner[~mask] == COUNT).all()
        assert len(np.unique(expected)) > 10


def test_neighbours_are_those_that_share_a_face() -> None:
    images, brain = case()
    owner = supervoxels(images, brain, CELL, 0.5, 5)
    near = neighbours(owner, GRID)
    for one, found in zip(owner.numpy(), near.numpy(), strict=True):
        first, second, _ = command.borders(np.where(one == COUNT, 0, one + 1))
        pairs = {(a - 1, b - 1) for a, b in zip(first.tolist(), second.tolist(), strict=True)}
        told = {(a, b) for a, row in enumerate(found.tolist()) for b in row if b != COUNT}
        assert told <= pairs | {(b, a) for a, b in pairs}
        assert told == {(b, a) for a, b in told}
        assert len(told) >= 2 * 0.98 * len(pairs) > 100


def test_quantiles_are_those_of_numpy() -> None:
    images, brain = case()
    owner = supervoxels(images, brain, CELL, 0.5, 2)
    found = quantiles(images, owner, COUNT)
    assert found.shape == (2, COUNT, 20)
    for image, one, told in zip(images.numpy(), owner.numpy(), found.numpy(), strict=True):
        for number in np.unique(one[one < COUNT]):
            expected = np.quantile(image[:, one == number], QUANTILES, axis=1, method="nearest").T
            np.testing.assert_array_equal(told[number].reshape(4, 5), expected)


def test_a_sample_does_not_depend_on_its_batch_mates() -> None:
    images, brain = case()
    both, alone = supervoxels(images, brain, CELL, 0.5, 3), supervoxels(images[:1], brain[:1], CELL, 0.5, 3)
    assert torch.equal(both[:1], alone)
    assert torch.equal(neighbours(both, GRID)[:1], neighbours(alone, GRID))
    assert torch.equal(quantiles(images, both, COUNT)[:1], quantiles(images[:1], alone, COUNT))

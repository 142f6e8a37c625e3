"""Boundary loss by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.losses.boundary import Boundary, signed_distance
from fedbrats.losses.dice import Dice
from fedbrats.tasks.segmentation import targets
from tests.losses.samples import logit


def test_distances_of_a_line() -> None:
    """Two voxels of six: boundaries lie between voxels 1 and 2, and between 3 and 4."""
    line = np.array([[0, 0, 1, 1, 0, 0]], bool)
    np.testing.assert_allclose(signed_distance(line), [[1.5, 0.5, -0.5, -0.5, 0.5, 1.5]])
    line = np.array([1, 1, 1, 0], bool)
    np.testing.assert_allclose(signed_distance(line), [-2.5, -1.5, -0.5, 0.5])
    np.testing.assert_array_equal(signed_distance(~line), -signed_distance(line))


def test_distances_are_euclidean_in_three_dimensions() -> None:
    cube = np.zeros((4, 5, 6), bool)
    cube[0, 0, 0] = True
    found = signed_distance(cube)
    assert found[0, 0, 0] == -0.5
    assert found[3, 4, 0] == pytest.approx(5 - 0.5)
    assert found[1, 2, 2] == pytest.approx(3 - 0.5)


@pytest.mark.parametrize("sides", [(9, 7), (7, 6, 8)])
def test_distances_are_those_to_the_nearest_voxel_of_the_other_kind(sides: tuple[int, ...]) -> None:
    """Brute force over all pairs, on scattered regions that also touch the edge."""
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.97):
        region = rng.random(sides) < share
        region.flat[0], region.flat[1] = True, False
        places = np.argwhere(np.ones(sides, bool)).astype(float)
        pairs = np.linalg.norm(places[:, None] - places[None], axis=2)
        flat = region.ravel()
        nearest = np.where(flat[:, None] != flat[None], pairs, np.inf).min(1)
        expected = np.where(flat, 0.5 - nearest, nearest - 0.5).reshape(sides)
        np.testing.assert_allclose(signed_distance(region), expected, rtol=1e-6)


@pytest.mark.parametrize("value", [False, True])
def test_a_region_without_boundary_says_nothing(value: bool) -> None:
    target = torch.full((1, 1, 4, 4), value)
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = Boundary()(logits, target)
    loss.sum().backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_value_by_hand() -> None:
    """Distances 1.5, 0.5, -0.5, -0.5, 0.5, 1.5 over their largest 1.5 are 1, 1/3, -1/3, -1/3, 1/3, 1."""
    target = torch.tensor([0.0, 0, 1, 1, 0, 0]).view(1, 1, 1, 6)
    p = [0.3, 0.6, 0.9, 0.6, 0.3, 0.2]
    expected = (0.3 + 0.2 - 0.3 - 0.2 + 0.1 + 0.2) / 6
    value = Boundary()(logit(p).view(1, 1, 1, 6), target)
    torch.testing.assert_close(value, torch.tensor([expected]))
    # a second and a third region without boundary share the mean
    rest = torch.zeros(1, 2, 1, 6)
    three = Boundary()(torch.cat([logit(p).view(1, 1, 1, 6), rest], 1), torch.cat([target, rest], 1))
    torch.testing.assert_close(three, torch.tensor([expected / 3]))


def test_the_print_is_a_sum_of_distances_in_voxels() -> None:
    """p times 1.5, 0.5, -0.5, -0.5, 0.5, 1.5; three regions have the mean of their sums."""
    target = torch.tensor([0.0, 0, 1, 1, 0, 0]).view(1, 1, 1, 6)
    logits = logit([0.3, 0.6, 0.9, 0.6, 0.3, 0.2]).view(1, 1, 1, 6)
    expected = 0.45 + 0.3 - 0.45 - 0.3 + 0.15 + 0.3
    torch.testing.assert_close(Boundary(scaled=False)(logits, target), torch.tensor([expected]))
    rest = torch.zeros(1, 2, 1, 6)
    three = Boundary(scaled=False)(torch.cat([logits, rest], 1), torch.cat([target, rest], 1))
    torch.testing.assert_close(three, torch.tensor([expected / 3]))


def test_classes_count_without_the_background() -> None:
    """Same line as oedema (class 2): only its channel has a boundary; the background's would be there too."""
    labels = torch.tensor([0, 0, 2, 2, 0, 0]).view(1, 1, 6)
    logits = torch.zeros(1, 4, 1, 6)  # p = 1/4 everywhere
    expected = 0.25 * (1 + 1 / 3 - 1 / 3 - 1 / 3 + 1 / 3 + 1) / 6 / 3
    torch.testing.assert_close(Boundary()(logits, targets(labels, 4)), torch.tensor([expected]))


def test_the_truth_costs_least() -> None:
    target = torch.zeros(1, 1, 9, 9)
    target[..., 3:6, 2:7] = 1
    sure = 60 * target - 30
    best = Boundary()(sure, target).item()
    for shift in ((1, 0), (0, 1), (1, 1)):
        assert Boundary()(sure.roll(shift, (2, 3)), target).item() > best
    assert Boundary()(torch.full_like(sure, -30.0), target).item() > best
    assert best < 0


@pytest.mark.parametrize("sides", [(64, 64), (128, 128), (32, 32, 32), (64, 64, 64)])
def test_gradient_is_of_the_order_of_dices(sides: tuple[int, ...]) -> None:
    grids = torch.meshgrid(*(torch.arange(s) - s / 2 + 0.5 for s in sides), indexing="ij")
    radius = sum(g * g for g in grids).sqrt()
    target = (radius < sides[0] / 6)[None, None].float()
    logits = ((radius < sides[0] / 5)[None, None] * 4.0 - 2.0).requires_grad_()
    norms = [torch.autograd.grad(f(logits, target).sum(), logits)[0].norm() for f in (Boundary(), Dice())]
    assert 0.1 < norms[0] / norms[1] < 1

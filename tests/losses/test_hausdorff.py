"""The Hausdorff-like loss of several labels: distances by brute force, values by hand, the loss that it comes from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from fedbrats.losses.distances import outside_distance
from fedbrats.losses.hausdorff import MultiLabelHausdorff
from fedbrats.tasks.segmentation import targets
from tests.losses.samples import logit

MEAN, MAX = {"mean": 1.0, "maximum": 0.0}, {"mean": 0.0, "maximum": 1.0}


@pytest.mark.parametrize("sides", [(9, 7), (7, 6, 8)])
def test_distances_are_those_to_the_nearest_voxel_of_the_region(sides: tuple[int, ...]) -> None:
    """Over all pairs, on scattered regions, small and large ones."""
    rng = np.random.default_rng(0)
    places = np.argwhere(np.ones(sides, bool)).astype(float)
    pairs = np.linalg.norm(places[:, None] - places[None], axis=2)
    for share in (0.02, 0.5, 0.97):
        region = rng.random(sides) < share
        region.flat[0], region.flat[1] = True, False
        expected = pairs[:, region.ravel()].min(1).reshape(sides)
        np.testing.assert_allclose(outside_distance(region), expected, rtol=1e-6)
    for value in (False, True):
        assert not outside_distance(np.full(sides, value)).any()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (MEAN, 0.25),  # ((0.2 + 0.5 + 0.2 + 1.2) / 5 + 0.4 / 5) / 2
        (MAX, 0.8),  # (1.2 + 0.4) / 2
        ({"mean": 0.1, "maximum": 0.01}, 0.025 + 0.008),
        (MEAN | {"alpha": 2.0}, 0.51),  # ((0.2 + 0.5 + 0.4 + 3.6) / 5 + 0.4 / 5) / 2
        (MEAN | {"beta": 2.0}, 0.095),  # ((0.04 + 0.25 + 0.02 + 0.48) / 5 + 0.16 / 5) / 2
    ],
)
def test_a_region_and_the_rest_by_hand(settings: dict[str, float], expected: float) -> None:
    """Distances to the region are 1, 0, 1, 2, 3 and to the rest 0, 1, 0, 0, 0; of the rest 1 - p is predicted."""
    target = torch.tensor([0.0, 1, 0, 0, 0]).view(1, 1, 1, 5)
    logits = logit([0.2, 0.6, 0.5, 0.1, 0.4]).view(1, 1, 1, 5)
    assert MultiLabelHausdorff(**settings)(logits, target).item() == pytest.approx(expected)
    # Three equal regions have the same mean.
    of_three = MultiLabelHausdorff(**settings)(logits.expand(1, 3, 1, 5), target.expand(1, 3, 1, 5))
    assert of_three.item() == pytest.approx(expected)


def test_exclusive_classes_by_hand() -> None:
    """Background, background, ED, ET: u is 0 0 1 2, of NCR nothing, 2 1 0 1 and 3 2 1 0."""
    labels = torch.tensor([0, 0, 2, 3]).view(1, 1, 4)
    p = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.4, 0.2, 0.3, 0.1], [0.2, 0.1, 0.5, 0.2], [0.1, 0.1, 0.2, 0.6]])
    logits = p.log().T.reshape(1, 4, 1, 4) + 1.5
    target = targets(labels, 4)
    mean = ((0.2 + 0.2) / 4 + 0 + (0.2 + 0.3 + 0.2) / 4 + (0.3 + 0.2 + 0.2) / 4) / 4
    assert MultiLabelHausdorff(**MEAN)(logits, target).item() == pytest.approx(mean)
    assert MultiLabelHausdorff(**MAX)(logits, target).item() == pytest.approx((0.2 + 0 + 0.3 + 0.3) / 4)


def test_two_labels_are_half_of_the_loss_of_karimi() -> None:
    """Equation 1 with d the distance to the other kind, on either side; |L| = 2."""
    rng = np.random.default_rng(1)
    region = rng.random((6, 5, 7)) < 0.3
    p = torch.from_numpy(rng.random(region.shape))
    d = torch.from_numpy(np.where(region, distance_transform_edt(region), distance_transform_edt(~region)))
    truth = torch.from_numpy(region).double()
    for alpha in (1.0, 2.0):
        karimi = ((truth - p).square() * d**alpha).mean().item()
        loss = MultiLabelHausdorff(**MEAN, alpha=alpha, beta=2.0)
        found = loss(p.logit()[None, None].float(), truth[None, None])
        assert 2 * found.item() == pytest.approx(karimi, rel=1e-5)


def test_the_truth_costs_nothing_and_a_shift_more_the_farther_it_is() -> None:
    labels = torch.zeros(1, 12, 12, dtype=torch.uint8)
    labels[0, 4:7, 4:7] = 3
    values = [
        MultiLabelHausdorff()(60.0 * targets(labels.roll(by, 1), 4) - 30, targets(labels, 4)).item()
        for by in (0, 1, 2, 4)
    ]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values == sorted(values)
    assert values[1] > 0.01


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": -1.0}, r"loss\.mean=-1\.0"),
        ({"maximum": float("nan")}, r"loss\.maximum=nan"),
        ({"mean": 0.0, "maximum": 0.0}, r"loss\.mean and loss\.maximum: not both"),
        ({"alpha": 0.0}, r"loss\.alpha=0\.0"),
        ({"beta": 0.5}, r"loss\.beta=0\.5"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MultiLabelHausdorff(**settings)

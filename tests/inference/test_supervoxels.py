"""Supervoxels by hand: two flat halves are told apart to the voxel, equation 1, pieces, and one piece each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from fedbrats.inference.supervoxels import (
    _connected,
    _nearest,
    _Seeds,
    borders,
    oversegment,
    renumbered,
    unit_range,
)

CELL = (5, 5, 5)
BORDER = 7  # inside the second row of cells, whose seeds start with a mean of both halves


def halves() -> np.ndarray:
    """Two flat halves [1, 20, 20, 20]: 0 where x < 7, else 1."""
    image = np.zeros((1, 20, 20, 20), np.float32)
    image[0, BORDER:] = 1
    return image


@pytest.mark.parametrize("epsilon", [0.01, np.inf])
def test_two_flat_halves_are_told_apart_to_the_voxel(epsilon: float) -> None:
    """Seeds that stand between the halves lose all their voxels: 4 x 4 of 4 x 4 x 4 seeds, so 48 are left."""
    image, whole = halves(), np.ones((20, 20, 20), bool)
    labels = oversegment(image, whole, CELL, epsilon=epsilon)
    assert labels.dtype == np.int32
    assert np.unique(labels).tolist() == list(range(1, 49))
    left, right = np.unique(labels[:BORDER]), np.unique(labels[BORDER:])
    assert not set(left) & set(right)
    assert (len(left), len(right)) == (16, 32)


def test_without_contrast_every_voxel_stays_in_its_cell() -> None:
    labels = oversegment(np.full((2, 20, 10, 10), 0.5, np.float32), np.ones((20, 10, 10), bool), CELL)
    cells = np.indices((20, 10, 10)) // 5
    expected = cells[0] * 4 + cells[1] * 2 + cells[2] + 1
    np.testing.assert_array_equal(labels, expected)


def noisy(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random((2, 24, 24, 24)), (0, 2, 2, 2))
    mask = np.zeros((24, 24, 24), bool)
    mask[2:-2, 2:-3, 1:-2] = True
    return unit_range(image, mask), mask


def test_each_is_one_piece_nothing_is_left_out_and_it_is_the_same_again() -> None:
    image, mask = noisy()
    labels = oversegment(image, mask, CELL)
    np.testing.assert_array_equal(labels > 0, mask)
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels == number)[1] == 1
    np.testing.assert_array_equal(oversegment(image, mask, CELL), labels)


def test_compactness_is_that_of_equation_1() -> None:
    """Owner 0 has values 0, 1 (variance .25) and 2, 2 (0) in two modalities: mean .125; owner 1 is flat."""
    owner, values = np.array([0, 0, 1]), np.array([[0.0, 2.0], [1.0, 2.0], [5.0, 5.0]])
    seeds = _Seeds(owner, values, np.zeros((3, 3)), 3, compactness=0.1, epsilon=0.25)
    np.testing.assert_allclose(np.sqrt(seeds.compact[:2]), [0.1 * np.exp(0.5), 0.1])
    np.testing.assert_allclose(seeds.value[0], [0.5, 2])
    assert seeds.sizes.tolist() == [2, 1, 0]


@pytest.mark.parametrize(("compact", "nearest"), [((1.0, 0.01), 1), ((0.01, 0.01), 0)])
def test_every_seed_weighs_distance_by_its_own_compactness(
    compact: tuple[float, float], nearest: int
) -> None:
    """Half way between seeds of values 0 and 0.4 lies a voxel of value 0.

    Of a compactness of 1 the first seed is 0.25 away, the other 0.0025 + 0.16; of equal ones the first is 0.0025 away.
    """
    seeds = SimpleNamespace(
        sizes=np.array([5, 5]),
        value=np.array([[0.0], [0.4]]),
        place=np.array([[0.0, 0, 0], [1.0, 0, 0]]),
        compact=np.array(compact),
    )
    one = np.zeros((1, 3), np.int64)
    found = _nearest(seeds, np.zeros((1, 1), np.float32), np.array([[0.5, 0, 0]], np.float32), one, (2, 1, 1))  # type: ignore[arg-type]
    assert found.tolist() == [nearest]


def test_pieces_by_hand() -> None:
    """A row: two far pieces of label 1 become two; a small one goes to the neighbour that it shares a face with."""
    row = np.array([1, 1, 1, 2, 2, 2, 1, 1, 1, 0, 3, 3, 3, 2]).reshape(-1, 1, 1)
    assert _connected(row, 2).ravel().tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 4, 4, 4, 4]
    alone = np.array([1, 0, 2, 2]).reshape(-1, 1, 1)
    assert _connected(alone, 2).ravel().tolist() == [1, 0, 2, 2]  # without a neighbour it stays


def test_borders_count_faces_and_know_no_background() -> None:
    labels = np.array([[1, 1, 2], [1, 3, 0]])[..., None]
    first, second, shared = borders(labels)
    # 1 and 2 share a face, 1 and 3 two; 2 and 3 touch at a corner only.
    assert list(zip(first, second, shared)) == [(1, 2, 1), (1, 3, 2)]


def test_renumbered_leaves_no_gap_and_keeps_the_order() -> None:
    assert renumbered(np.array([0, 7, 3, 7, 9])).tolist() == [0, 2, 1, 2, 3]


def test_unit_range_is_of_each_modality_over_the_mask() -> None:
    image = np.array([[2.0, 4.0, 6.0, 99.0], [5.0, 5.0, 5.0, 0.0]]).reshape(2, 4, 1, 1)
    mask = np.array([True, True, True, False]).reshape(4, 1, 1)
    assert unit_range(image, mask)[0].ravel().tolist() == [0, 0.5, 1, 0]
    assert unit_range(image, mask)[1].ravel().tolist() == [0, 0, 0, 0]  # of one value


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cell": (0, 5, 5)}, "must be positive"),
        ({"compactness": -1.0}, "must be positive"),
        ({"mask": np.zeros((20, 20, 20), bool)}, "mask is empty"),
        ({"mask": np.ones((20, 20, 19), bool)}, "do not belong together"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"image": halves(), "mask": np.ones((20, 20, 20), bool), "cell": CELL}
    with pytest.raises(ValueError, match=said):
        oversegment(**{**given, **changed})  # type: ignore[arg-type]

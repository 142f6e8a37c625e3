"""Merging by hand: equations 2 and 5 in numbers, a path of three supervoxels, and two halves that become two."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedbrats.inference.merging import (
    ANGLES,
    BINS,
    STEPS,
    Looks,
    _joined,
    likeness,
    looks_of,
    merge,
    threshold,
)
from fedbrats.inference.supervoxels import oversegment
from tests.inference.test_supervoxels import BORDER, CELL, halves, noisy

FIRST, SECOND = np.array([1, 2]), np.array([2, 3])  # a path: 1 - 2 - 3


def looks(means: tuple[float, ...], texture: tuple[int, ...]) -> Looks:
    """Supervoxels of 10 voxels with a mean each, all voxels of each in one bin of every histogram."""
    histograms = np.zeros((len(means) + 1, 1, BINS + ANGLES * STEPS))
    for number, bin_ in enumerate(texture, start=1):
        for begin in (0, *(BINS + angle * STEPS for angle in range(ANGLES))):
            histograms[number, 0, begin + bin_] = 10
    sizes = np.array([0.0, *[10.0] * len(means)])
    return Looks(sizes, np.array([[0.0], *([10 * mean] for mean in means)]), histograms)


def test_likeness_is_equation_2() -> None:
    found = likeness(looks((0.3, 0.5, 0.5), (0, 0, 1)), FIRST, SECOND)
    colour = math.exp(-((0.5 * 0.2 / 0.6) ** 2) / 0.1)  # means differ by 0.2, histograms by nothing
    texture = math.exp(-((0.1 * 1.0 / 0.6) ** 2) / 0.1)  # means by nothing, histograms are disjoint
    np.testing.assert_allclose(found, [colour, texture])
    assert likeness(looks((0.3, 0.3), (4, 4)), FIRST[:1], SECOND[:1]).tolist() == [1.0]


def test_black_and_white_in_every_modality_differ_by_one() -> None:
    one = looks((0.0, 1.0), (0, 0))
    two = Looks(one.sizes, np.repeat(one.intensities, 2, axis=1), np.repeat(one.histograms, 2, axis=1))
    for found in (one, two):
        assert likeness(found, FIRST[:1], SECOND[:1])[0] == pytest.approx(math.exp(-((0.5 / 0.6) ** 2) / 0.1))


def test_threshold_is_equation_5() -> None:
    """Least less spread: .8 - 0 at 1, .4 - .2 at 2, .4 - 0 at 3; 4 has no edge and no say."""
    found = threshold(4, FIRST, SECOND, np.array([0.8, 0.4]))
    assert found == pytest.approx((0.8 + 0.2 + 0.4) / 3)


@pytest.mark.parametrize(
    ("least", "expected"), [(0.5, [0, 1, 1, 2]), (0.3, [0, 1, 1, 1]), (0.9, [0, 1, 2, 3])]
)
def test_a_supervoxel_joins_its_nearest_where_that_is_near_enough(least: float, expected: list[int]) -> None:
    assert _joined(3, FIRST, SECOND, np.array([0.8, 0.4]), least).tolist() == expected


def test_looks_of_a_union_are_those_of_its_voxels() -> None:
    image, mask = noisy()
    labels = oversegment(image, mask, CELL)
    target = np.arange(labels.max() + 1)
    target[target % 2 == 0] //= 2
    target[target % 2 == 1] = 1
    target[0] = 0
    target = np.unique(target, return_inverse=True)[1]
    joined, anew = looks_of(image, labels).joined(target), looks_of(image, target[labels])
    np.testing.assert_array_equal(joined.sizes, anew.sizes)
    np.testing.assert_array_equal(joined.histograms, anew.histograms)
    np.testing.assert_allclose(joined.intensities, anew.intensities)
    # Every voxel stands in each of the nine histograms of a modality once.
    np.testing.assert_array_equal(anew.histograms.sum(axis=(1, 2)), 2 * 9 * anew.sizes)


def test_two_flat_halves_become_two_supervoxels() -> None:
    image = halves()
    labels = oversegment(image, np.ones((20, 20, 20), bool), CELL)
    merged = merge(image, labels)
    assert merged.dtype == np.int32
    np.testing.assert_array_equal(merged, 1 + (np.arange(20) >= BORDER)[:, None, None] * np.ones((1, 20, 20)))


def test_merging_only_joins_and_only_what_touches() -> None:
    image, mask = noisy()
    labels = oversegment(image, mask, CELL)
    merged = merge(image, labels)
    assert 1 <= merged.max() < labels.max()
    for number in range(1, labels.max() + 1):
        assert len(np.unique(merged[labels == number])) == 1
    np.testing.assert_array_equal(merged > 0, mask)
    np.testing.assert_array_equal(merge(image, labels), merged)


def test_apart_they_stay_apart_however_alike() -> None:
    labels = np.zeros((5, 2, 2), np.int32)
    labels[:2], labels[3:] = 1, 2
    assert merge(np.full((1, 5, 2, 2), 0.5, np.float32), labels).max() == 2

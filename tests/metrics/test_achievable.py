"""Achievable segmentation accuracy by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.metrics.achievable import achievable_accuracy


def test_by_hand() -> None:
    """Supervoxel 1 is mostly tumour 1, supervoxel 2 mostly background: two of three tumour voxels can be had."""
    regions = np.array([1, 1, 1, 2, 2, 2, 2]).reshape(-1, 1, 1)
    truth = np.array([1, 1, 0, 2, 0, 0, 0]).reshape(-1, 1, 1)
    assert achievable_accuracy(regions, truth) == pytest.approx(2 / 3)
    assert achievable_accuracy(np.arange(7).reshape(-1, 1, 1), truth) == 1.0  # every voxel for itself
    assert achievable_accuracy(np.ones_like(regions), truth) == 0.0  # one for all: background has most


def test_labels_are_names_and_the_smaller_wins_a_tie() -> None:
    regions, truth = np.array([[1, 1, 2, 2]])[..., None], np.array([[4, 1, 0, 4]])[..., None]
    assert achievable_accuracy(regions, truth) == pytest.approx(1 / 3)  # 1 before 4, 0 before 4


def test_without_tumour_there_is_nothing_to_achieve() -> None:
    assert achievable_accuracy(np.ones((2, 2, 2), int), np.zeros((2, 2, 2), int)) is None
    with pytest.raises(ValueError, match="do not belong together"):
        achievable_accuracy(np.ones((2, 2, 2), int), np.zeros((2, 2, 1), int))

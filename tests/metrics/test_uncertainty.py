"""Uncertainty against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fedbrats.metrics.uncertainty import (
    case_uncertainty,
    entropy,
    expected_calibration_error,
    rejection_ratio,
    reliability,
    retained,
)


def uncertain(p: list[float], mask: list[int]) -> float:
    return case_uncertainty(np.array(p, np.float32).reshape(-1, 1, 1), np.array(mask, bool).reshape(-1, 1, 1))


def test_sure_and_right_or_wrong() -> None:
    assert uncertain([1, 1, 0, 0], [1, 1, 0, 0]) == 0
    assert uncertain([0, 0, 0, 0], [0, 0, 0, 0]) == 0
    assert uncertain([0, 0, 0, 0], [1, 0, 0, 0]) == 1
    assert (
        uncertain([1, 0, 0, 0], [0, 0, 0, 0]) == 1
    )  # emptied by post-processing, though the network was sure


def test_three_levels_by_hand() -> None:
    """p = 0.9, 0.6, 0.2, mask the first two.

    u in [0.9, 1): truth empty, Dice 0. [0.6, 0.9): one voxel, 2 / 3. [0.2, 0.6): two, 1. [0, 0.2): three, 4 / 5.
    """
    expected = 1 - (0.3 * 2 / 3 + 0.4 * 1 + 0.2 * 4 / 5)
    assert uncertain([0.9, 0.6, 0.2], [1, 1, 0]) == pytest.approx(expected)
    assert uncertain([0.2, 0.9, 0.6], [0, 1, 1]) == pytest.approx(expected)


def test_a_faint_region_counts_alike_drawn_or_not() -> None:
    faint = [0.5] * 100 + [0.0] * 900
    assert uncertain(faint, [0] * 1000) == pytest.approx(0.5)
    assert uncertain(faint, [1] * 100 + [0] * 900) == pytest.approx(0.5)
    crisp = [0.99] * 100 + [0.01] * 900
    # u < 0.01: the truth is all 1000 voxels, 2 * 100 / 1100; u >= 0.99: empty
    assert uncertain(crisp, [1] * 100 + [0] * 900) == pytest.approx(1 - (0.98 + 0.01 * 200 / 1100))


def test_a_background_floor_weighs_little() -> None:
    region, rest = [0.95] * 10, [0.001] * 100_000
    assert uncertain(region + rest, [1] * 10 + [0] * 100_000) < 0.06
    assert uncertain([0.001] * 1000, [0] * 1000) == pytest.approx(0.001)


def test_it_grows_with_doubt() -> None:
    values = [uncertain([p] * 8 + [0] * 8, [1] * 8 + [0] * 8) for p in (1.0, 0.9, 0.7, 0.51)]
    assert values == pytest.approx([0, 0.1, 0.3, 0.49])


def test_rounding_is_forgiven_and_nonsense_is_not() -> None:
    assert uncertain([1.0000002, -1e-7], [1, 0]) == 0
    for bad in ([1.5, 0.0], [math.nan, 0.0], [-0.2, 0.5]):
        with pytest.raises(ValueError, match="expected probabilities between 0 and 1"):
            uncertain(bad, [1, 0])
    with pytest.raises(ValueError, match="one shape"):
        case_uncertainty(np.zeros((2, 2)), np.zeros((2, 3), bool))


def test_entropy_in_bits() -> None:
    found = entropy(np.array([[0.0, 0.5, 1.0], [0.25, 0.75, 0.1]], np.float32))
    quarter = 0.25 * 2 + 0.75 * math.log2(4 / 3)
    tenth = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert found.dtype == np.float32
    assert found.tolist() == [pytest.approx([0, 1, 0]), pytest.approx([quarter, quarter, tenth])]


def test_reliability_counts_inside_only_and_adds_up() -> None:
    p = np.array([0.05, 0.05, 0.45, 0.95, 1.0, 0.5], np.float32)
    truth = np.array([0, 1, 1, 1, 0, 1], bool)
    inside = np.array([1, 1, 1, 1, 1, 0], bool)
    table = reliability(p, truth, inside)
    assert table.shape == (10, 3)
    assert table[[0, 4, 9]] == pytest.approx(np.array([[2, 0.1, 1], [1, 0.45, 1], [2, 1.95, 1]]))
    assert table.sum(axis=0) == pytest.approx([5, 2.5, 3])
    more = reliability(p, truth, ~inside, bins=10)
    assert more[5] == pytest.approx([1, 0.5, 1])  # an inner edge belongs to the bin above
    assert table + more == pytest.approx(reliability(p, truth, np.ones(6, bool)))
    with pytest.raises(ValueError, match="shapes differ"):
        reliability(p, truth[:3], inside)


def test_calibration_error() -> None:
    table = np.array([[90, 9.0, 18], [10, 9.0, 5]])  # means 0.1 and 0.9, frequencies 0.2 and 0.5
    assert expected_calibration_error(table) == pytest.approx(0.9 * 0.1 + 0.1 * 0.4)
    assert expected_calibration_error(np.array([[4, 1.0, 1], [0, 0, 0]])) == 0
    with pytest.raises(ValueError, match="no voxel"):
        expected_calibration_error(np.zeros((10, 3)))


def test_retained_cases() -> None:
    """Uncertainty sorts 0.9, 0.5, 0.8, 0.2 (best kept first: 0.9); the oracle drops 0.2, then 0.5, then 0.8."""
    curve = retained(np.array([0.1, 0.4, 0.2, 0.3]), np.array([0.9, 0.2, 0.5, 0.8]))
    assert curve["share"].tolist() == [0, 0.25, 0.5, 0.75]
    assert curve["mean_score"].tolist() == pytest.approx([0.6, 2.2 / 3, 0.7, 0.9])
    assert curve["oracle"].tolist() == pytest.approx([0.6, 2.2 / 3, 0.85, 0.9])
    assert curve["random"].tolist() == pytest.approx([0.6] * 4)
    best = 2.2 / 3 + 0.85 + 0.9 - 3 * 0.6
    assert rejection_ratio(curve) == pytest.approx((best - 0.15) / best)


def test_order_of_equally_uncertain_cases_does_not_matter() -> None:
    one = retained(np.array([0.5, 0.5, 0.1]), np.array([1.0, 0.0, 0.8]))
    two = retained(np.array([0.5, 0.1, 0.5]), np.array([0.0, 0.8, 1.0]))
    pd.testing.assert_frame_equal(one, two)
    assert one["mean_score"].tolist() == pytest.approx([0.6, 0.65, 0.8])  # (0.8 + 0.5) / 2
    assert rejection_ratio(retained(np.full(4, 0.3), np.array([0.1, 0.5, 0.9, 0.2]))) == pytest.approx(0)


def test_ratio_is_one_for_the_oracle_and_negative_for_its_opposite() -> None:
    dice = np.array([0.3, 0.9, 0.6])
    assert rejection_ratio(retained(1 - dice, dice)) == pytest.approx(1)
    assert rejection_ratio(retained(dice, dice)) < 0
    assert math.isnan(rejection_ratio(retained(dice, np.full(3, 0.7))))
    assert math.isnan(rejection_ratio(retained(np.array([0.2]), np.array([0.7]))))


def test_retained_refuses_what_it_cannot_rank() -> None:
    for doubt, dice in (([], []), ([0.1], [0.1, 0.2]), ([math.nan], [0.5])):
        with pytest.raises(ValueError, match=r"equally long|finite"):
            retained(np.array(doubt), np.array(dice))

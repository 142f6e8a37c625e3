"""Scores of whole cases: against counting by hand, scipy and scikit-learn; when chance is called chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fedbrats.metrics.classification import (
    SCORES,
    accuracy,
    auc,
    bins_of,
    brier,
    calibration_error,
    chance,
    intervals,
    sensitivity,
    specificity,
    weighted,
)

SEEN = np.array([0.9, 0.8, 0.5, 0.5, 0.2, 0.1])
TRUE = np.array([1, 0, 1, 0, 1, 0])
NONE = np.array([])


def drawn(cases: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(cases) % 2
    return 1 / (1 + np.exp(-(rng.standard_normal(cases) + shift * labels))), labels


def test_auc_by_hand() -> None:
    # Pairs of a 1 (.9 .5 .2) and a 0 (.8 .5 .1): won 3, 1.5 and 1 of 9.
    assert auc(SEEN, TRUE) == pytest.approx(5.5 / 9)
    assert auc(1 - SEEN, TRUE) == pytest.approx(1 - 5.5 / 9)
    assert auc(np.full(6, 0.3), TRUE) == 0.5
    assert auc(TRUE.astype(float), TRUE) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_that_of_scipy(seed: int) -> None:
    scores, labels = drawn(37, 0.7, seed)
    scores = scores.round(1)  # with ties
    ones, zeros = scores[labels == 1], scores[labels == 0]
    expected = mannwhitneyu(ones, zeros).statistic / (len(ones) * len(zeros))
    assert auc(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_what_is_drawn_is_scored_as_cases_are() -> None:
    scores, labels = drawn(23, 0.7)
    scores = scores.round(1)
    often = np.random.default_rng(0).integers(1, 4, (5, 23))
    found = weighted(scores, labels, often.astype(float))
    for draw, counts in enumerate(often):
        again = np.repeat(scores, counts), np.repeat(labels, counts)
        assert {name: found[name][draw] for name in SCORES} == pytest.approx(
            {name: score(*again) for name, score in SCORES.items()}, abs=1e-12
        )


def test_shares_by_hand() -> None:
    # Called 1 from 0.5 on: .9 .8 .5 .5, of which .9 and .5 are.
    assert accuracy(SEEN, TRUE) == pytest.approx(3 / 6)
    assert sensitivity(SEEN, TRUE) == pytest.approx(2 / 3)
    assert specificity(SEEN, TRUE) == pytest.approx(1 / 3)
    assert brier(SEEN, TRUE) == pytest.approx((0.01 + 0.64 + 0.25 + 0.25 + 0.64 + 0.01) / 6)


def test_calibration_by_hand() -> None:
    # Bins of a tenth: {.1}, {.2}, {.5 .5}, {.8}, {.9}: |.1 - 0| + |.2 - 1| + |1 - 1| + |.8 - 0| + |.9 - 1|.
    assert calibration_error(SEEN, TRUE) == pytest.approx((0.1 + 0.8 + 0.0 + 0.8 + 0.1) / 6)
    assert bins_of(SEEN, TRUE)[5].tolist() == [2, 1.0, 1]
    assert calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0.0


@pytest.mark.parametrize("labels", [np.ones(6, int), np.zeros(6, int)])
def test_one_label_has_no_auc_and_no_p(labels: np.ndarray) -> None:
    assert math.isnan(auc(SEEN, labels))
    assert math.isnan(chance(SEEN, labels))
    assert math.isnan(sensitivity(SEEN, labels)) != math.isnan(specificity(SEEN, labels))
    assert math.isfinite(accuracy(SEEN, labels))


def test_no_cases_have_no_scores() -> None:
    assert all(math.isnan(score(NONE, NONE)) for score in SCORES.values())
    assert all(math.isnan(end) for ends in intervals(NONE, NONE).values() for end in ends)


def test_p_of_all_ways_by_hand() -> None:
    # Two of four are 1; of the six ways to choose them one has the two highest scores, two the highest and third.
    scores = np.array([0.9, 0.7, 0.4, 0.1])
    assert chance(scores, np.array([1, 1, 0, 0])) == pytest.approx(1 / 6)
    assert chance(scores, np.array([1, 0, 1, 0])) == pytest.approx(2 / 6)
    assert chance(scores, np.array([0, 0, 1, 1])) == 1.0
    assert chance(np.full(4, 0.5), np.array([1, 0, 1, 0])) == 1.0  # all ways are as good


def test_p_of_random_ways_is_that_of_all_of_them() -> None:
    scores, labels = drawn(16, 1.0)  # 12 870 ways, more than are looked at one by one
    ones, zeros = scores[labels == 1], scores[labels == 0]
    exact = mannwhitneyu(ones, zeros, alternative="greater", method="exact").pvalue
    assert chance(scores, labels, draws=4000) == pytest.approx(exact, abs=0.02)
    assert chance(scores, labels) == chance(scores, labels)
    assert chance(scores, labels, draws=9) >= 0.1  # what was seen is one of the ways


def test_chance_is_found_significant_as_often_as_it_may_be() -> None:
    found = [chance(*drawn(12, 0.0, seed)) < 0.05 for seed in range(200)]
    assert np.mean(found) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert np.mean([chance(*drawn(12, 3.0, seed)) < 0.05 for seed in range(20)]) > 0.8


def test_intervals_hold_the_score_and_shrink_with_cases() -> None:
    widths = []
    for cases in (20, 320):
        scores, labels = drawn(cases, 1.0)
        ends = intervals(scores, labels, draws=300)
        for name in ("auc", "accuracy", "sensitivity", "specificity", "brier"):
            assert ends[name][0] <= SCORES[name](scores, labels) <= ends[name][1]
        widths.append(ends["auc"][1] - ends["auc"][0])
    assert 0.1 < widths[0] / 4 / widths[1] < 2  # as one over the square root of the cases
    assert intervals(scores, labels, draws=50) == intervals(scores, labels, draws=50)


def test_an_interval_covers_the_truth_nearly_as_often_as_it_says() -> None:
    true = 0.7602  # of two normal distributions one apart: Phi(1 / sqrt 2)
    ends = [intervals(*drawn(60, 1.0, seed), draws=200)["auc"] for seed in range(60)]
    assert 0.85 < np.mean([low <= true <= high for low, high in ends]) <= 1


def test_a_single_case_of_a_label_has_no_interval() -> None:
    ends = intervals(SEEN, np.array([1, 0, 0, 0, 0, 0]))
    assert all(math.isnan(end) for end in ends["auc"])

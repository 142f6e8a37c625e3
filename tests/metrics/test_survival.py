"""The log-rank test against a published count, two medoids against all pairs, the sign of the loss."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fedbrats.metrics.survival import log_rank, significance_loss, two_groups

# Remission in weeks under 6-mercaptopurine and placebo (Freireich et al., Blood 1963), alive where there is a plus.
TREATED = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
PLACEBO = "1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23"


def test_the_log_rank_test_of_freireich() -> None:
    """Chi-square 16.79 with one degree of freedom, as textbooks and R's survdiff have it: p = 4.17e-5."""
    words = [*TREATED.split(), *PLACEBO.split()]
    days = np.array([float(word.rstrip("+")) for word in words])
    died = np.array(["+" not in word for word in words])
    groups = np.repeat([0, 1], 21)
    assert log_rank(groups, days, died) == pytest.approx(4.17e-5, rel=0.01)
    assert log_rank(1 - groups, days, died) == pytest.approx(log_rank(groups, days, died))


def test_what_cannot_be_tested_is_not_significant() -> None:
    days = np.array([1.0, 2.0])
    assert log_rank(np.array([1, 1]), days, np.array([True, True])) == 1
    assert log_rank(np.array([0, 1]), days, np.array([False, False])) == 1


def test_a_smaller_p_is_a_smaller_loss_and_tau_is_where_it_turns() -> None:
    assert significance_loss(0.05, 0.05) == 0
    assert significance_loss(0.005, 0.05) == pytest.approx(-np.log(10))
    assert significance_loss(0.5, 0.05) == pytest.approx(np.log(10))
    assert np.isfinite(significance_loss(0.0))


def test_the_medoids_are_the_best_of_all_pairs_and_group_new_patients() -> None:
    features = np.random.default_rng(0).normal(size=(9, 3)) * [1, 100, 0.01]
    features[:, 2] = 7  # says nothing
    found = two_groups(features)
    scaled = (features[:, :2] - features[:, :2].mean(0)) / features[:, :2].std(0)
    cost = {
        pair: sum(min(np.linalg.norm(row - scaled[m]) for m in pair) for row in scaled)
        for pair in combinations(range(9), 2)
    }
    np.testing.assert_allclose(found.medoids[:, :2], scaled[list(min(cost, key=cost.get))])  # type: ignore[arg-type]
    medoids = list(min(cost, key=cost.get))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.of(features[medoids]), [0, 1])
    with pytest.raises(ValueError, match="two or more"):
        two_groups(features[:1])

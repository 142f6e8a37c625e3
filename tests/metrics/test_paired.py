"""Paired comparisons, against scipy, against other ways to compute them, and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import (
    bootstrap,
    friedmanchisquare,
    rankdata,
    wilcoxon,
)
from scipy.stats import (
    permutation_test as scipy_permutation,
)

from fedbrats.metrics.paired import bootstrap_interval, case_ranks, holm, permutation_test, signed_rank


def test_with_one_case_per_institution_the_bootstrap_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(0.02, 0.05, 40)
    low, high = bootstrap_interval(values, [str(k) for k in range(40)])
    theirs = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    )
    assert low == pytest.approx(theirs.confidence_interval.low, abs=1e-3)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=1e-3)


def test_institutions_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    site = np.repeat(np.arange(5), 20)
    shifts = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])[site]
    values = shifts + rng.normal(0, 0.01, 100)
    low, high = bootstrap_interval(values, site.tolist())
    # Five institutions drawn from five: the variance of the mean is that of the shifts / 5 (population), .02 / 5.
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.02 / 5), rel=0.1)
    narrow = bootstrap_interval(values, list(range(100)))
    assert high - low > 2 * (narrow[1] - narrow[0])


def test_the_second_stage_draws_cases_within_an_institution() -> None:
    values = np.array([0.0, 1.0] * 10)  # both institutions are alike: only cases vary
    low, high = bootstrap_interval(values, ["a"] * 10 + ["b"] * 10)
    # The mean of 20 draws of 0 and 1 has a standard deviation of .5 / sqrt(20).
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / math.sqrt(20), rel=0.1)


def test_large_institutions_weigh_by_their_cases() -> None:
    values, groups = np.array([1.0] * 30 + [0.0] * 10), ["a"] * 30 + ["b"] * 10
    low, high = bootstrap_interval(values, groups)
    assert (low, high) == (0.0, 1.0)  # both drawn from one of them is no rare thing
    again = bootstrap_interval(values[::-1], groups[::-1])
    assert again == (low, high)


def test_one_institution_says_nothing_of_others() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([0.1, 0.2]), ["a", "a"]))


def test_signed_rank_is_that_of_scipy_and_its_size_is_by_hand() -> None:
    values = np.array([0.3, -0.1, 0.2, 0.0, 0.4])
    p, size = signed_rank(values)
    assert (
        p == wilcoxon([0.3, -0.1, 0.2, 0.4]).pvalue == 0.25
    )  # 4 of 16 sign patterns reach a sum of at most 1
    assert size == pytest.approx((2 + 3 + 4 - 1) / 10)
    assert signed_rank(-values)[1] == pytest.approx(-0.8)
    assert signed_rank(np.zeros(4)) == (1.0, 0.0)


def test_holm_by_hand() -> None:
    # sorted .01 * 4, .02 * 3, .03 * 2, .04 * 1 -> .04, .06, .06, .06 (never below the one before)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.02)  # two tests, not three
    assert math.isnan(adjusted[1])


def test_ranks_of_cases_by_hand() -> None:
    dice = [[0.9, 0.5], [0.8, 0.5], [0.7, 0.6]]  # of three methods in two cases
    hd95 = [[2.0, 9.0], [1.0, 9.0], [3.0, 1.0]]
    ranks = case_ranks(np.stack([dice, hd95], axis=-1), [False, True])
    # case 1: dice 1 2 3, hd95 2 1 3; case 2: dice 2.5 2.5 1, hd95 2.5 2.5 1
    np.testing.assert_allclose(ranks, [[1.5, 2.5], [1.5, 2.5], [3.0, 1.0]])
    # Friedman's test is built on the same ranks.
    scores = np.random.default_rng(0).random((4, 9, 1))
    means = case_ranks(scores, [True]).mean(axis=1)
    statistic = 12 * 9 / (4 * 5) * float(((means - 2.5) ** 2).sum())
    assert friedmanchisquare(*scores[:, :, 0]).statistic == pytest.approx(statistic)


def test_the_permutation_test_goes_through_all_ways_with_few_cases() -> None:
    one, other = np.array([1.0, 1.0, 1.5]), np.array([2.0, 2.0, 1.5])
    assert permutation_test(one, other) == 2 / 8  # only (+, +) reaches 2, whatever the third
    assert permutation_test(other, one) == 1.0
    assert permutation_test(one, one) == 1.0


def test_the_permutation_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(5)
    one = rankdata(rng.normal(0, 1, (3, 30)), axis=0).astype(float)
    for left, right in itertools.permutations(range(3), 2):
        theirs = scipy_permutation(
            (one[left], one[right]),
            lambda a, b, axis=-1: np.mean(b - a, axis=axis),
            permutation_type="samples",
            alternative="greater",
            n_resamples=20_000,
            vectorized=True,
            rng=np.random.default_rng(0),
        )
        assert permutation_test(one[left], one[right]) == pytest.approx(theirs.pvalue, abs=0.015)


def test_with_random_ways_the_one_that_was_seen_is_counted() -> None:
    one, other = np.ones(40), np.full(40, 2.0)
    assert permutation_test(one, other) == 1 / 10_001

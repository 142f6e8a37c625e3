"""Intervals of a mean: against closed forms and drawn weights, by hand over institutions, and how often they cover."""

import numpy as np
import pytest
from scipy.stats import beta, t

from fedbrats.metrics.coverage import CASES, FEDERATIONS, SITES, over_cases, over_institutions, usual
from fedbrats.metrics.interval import MIN_CASES, mean_interval, share_below

MIXED = np.array([0.91, 0.0, 0.85, 0.88, 0.79, 0.93, 0.0, 0.84])


@pytest.mark.parametrize(("good", "n"), [(6, 6), (0, 6), (3, 10), (14, 22), (49, 50), (400, 500)])
def test_of_zeros_and_ones_it_is_that_of_clopper_and_pearson(good: int, n: int) -> None:
    expected = (
        beta.ppf(0.025, good, n - good + 1) if good else 0,
        beta.ppf(0.975, good + 1, n - good) if good < n else 1,
    )
    found = mean_interval(np.repeat([1.0, 0.0], [good, n - good]), (0, 1))
    assert found == pytest.approx(expected, abs=1e-8)


def test_it_is_the_quantile_of_means_with_random_weights_and_the_end_of_the_range() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(9), 400_000)
    low, high = mean_interval(MIXED, (0, 1))
    assert low == pytest.approx(np.quantile(weights @ [*MIXED, 0.0], 0.025), abs=0.002)
    assert high == pytest.approx(np.quantile(weights @ [*MIXED, 1.0], 0.975), abs=0.002)
    assert share_below(MIXED, 0.6) == pytest.approx(np.mean(weights[:, :8] @ (MIXED - 0.6) <= 0), abs=0.002)


def test_it_moves_with_the_scale_and_with_nothing_else() -> None:
    """No seed, no order: HD95 intervals moved by up to 16 mm from one resampling to the next."""
    low, high = mean_interval(MIXED, (0, 1))
    assert mean_interval(MIXED[::-1], (0, 1)) == (low, high)
    assert mean_interval(374 * MIXED, (0, 374)) == pytest.approx((374 * low, 374 * high), rel=1e-7)
    assert mean_interval(1 - MIXED, (0, 1)) == pytest.approx((1 - high, 1 - low), rel=1e-7)


def test_cases_that_all_agree_leave_what_was_not_seen() -> None:
    open_part = 1 - 0.025 ** (
        1 / MIN_CASES
    )  # a kind of case as frequent as this would be missed 1 time in 40
    assert open_part < 0.5 < 1 - 0.025 ** (1 / (MIN_CASES - 1))
    assert mean_interval(np.full(MIN_CASES, 0.8), (0, 1)) == pytest.approx(
        (0.8 * (1 - open_part), 0.8 + 0.2 * open_part)
    )
    assert mean_interval(np.zeros(MIN_CASES), (0, 0)) == (0, 0)
    assert mean_interval(np.array([0, 0, 0, 0, 0, 3.0]), (0, 1))[1] <= 3  # a value beyond the end moves it


@pytest.mark.parametrize("n", range(MIN_CASES))
def test_few_cases_have_none(n: int) -> None:
    assert np.isnan(mean_interval(MIXED[:n], (0, 1))).all()


def test_over_institutions_of_one_size_it_is_students_t_of_their_means() -> None:
    values = np.array([0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.4, 0.5])
    means = values.reshape(4, 2).mean(axis=1)
    half = t.ppf(0.975, 3) * means.std(ddof=1) / 2
    cases = mean_interval(values, (-9, 9))
    assert mean_interval(values, (0, 1), [*"aabbccdd"]) == pytest.approx((0.5 - half, 0.5 + half))
    assert mean_interval(values, (-9, 9), [*"aabbccdd"]) == cases  # the wider of the two
    assert mean_interval(values, (0, 1), ["a"] * 8) == mean_interval(values, (0, 1))


def test_it_stays_within_the_range() -> None:
    values = np.repeat([0.1, 0.9], 5)
    assert mean_interval(values, (0, 1), [*"aaaaabbbbb"]) == (0, 1)


@pytest.mark.parametrize("name", CASES)
def test_it_covers_from_the_least_number_of_cases_to_50(name: str) -> None:
    """A true 95 % gives less than 86 of 100 of 60 samples once in 300 times."""
    for n in (MIN_CASES, 10, 22, 50):
        assert over_cases(name, n, 60)[0] >= 0.86, n


def test_what_was_there_before_does_not_cover() -> None:
    percentile, bca, student = usual("Dice, 10 % zeros", 10, 100)
    assert max(percentile, bca, student) < 0.85
    assert max(usual("Dice, Beta(8, 2)", 2, 100)[:2]) < 0.65


@pytest.mark.parametrize("name", SITES)
def test_it_covers_over_institutions(name: str) -> None:
    for sizes in FEDERATIONS.values():
        assert over_institutions(name, sizes, 40)[0] >= 0.85, sizes

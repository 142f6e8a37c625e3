"""Poisson sampling of patients, against the binomial law."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.privacy.noise import secret_numbers
from fedbrats.privacy.sampler import draw_patients

PATIENTS, DRAWS = 30, 20_000


def included(sample_rate: float) -> np.ndarray:
    """Who took part, bool [DRAWS, PATIENTS]."""
    secret = secret_numbers(7)
    taken = np.zeros((DRAWS, PATIENTS), bool)
    for row in taken:
        row[draw_patients(PATIENTS, sample_rate, secret)] = True
    return taken


@pytest.fixture(scope="module")
def eighth() -> np.ndarray:
    return included(1 / 8)


def test_every_patient_is_taken_at_the_rate(eighth: np.ndarray) -> None:
    # Five standard deviations of a binomial share.
    bound = 5 * math.sqrt(1 / 8 * 7 / 8 / DRAWS)
    assert np.abs(eighth.mean(0) - 1 / 8).max() < bound


def test_patients_are_independent_of_each_other(eighth: np.ndarray) -> None:
    # A draw of a fixed size would have a correlation of -1/29 = -0.034 between any two.
    correlation = np.corrcoef(eighth.T)[~np.eye(PATIENTS, dtype=bool)]
    assert np.abs(correlation).max() < 5 / math.sqrt(DRAWS) + 1e-3
    assert abs(correlation.mean()) < 0.003


def test_steps_are_independent_of_each_other(eighth: np.ndarray) -> None:
    both = (eighth[1:] & eighth[:-1]).mean()
    assert abs(both - 1 / 64) < 5 * math.sqrt(1 / 64 / eighth.size)


def test_size_of_a_draw_is_binomial(eighth: np.ndarray) -> None:
    sizes = eighth.sum(1)
    assert sizes.mean() == pytest.approx(PATIENTS / 8, abs=5 * math.sqrt(3.3 / DRAWS))
    assert sizes.var() == pytest.approx(PATIENTS * 1 / 8 * 7 / 8, rel=0.06)
    assert (sizes == 0).mean() == pytest.approx((7 / 8) ** PATIENTS, rel=0.3)  # 1.8 % are empty


def test_indices_are_distinct_whole_numbers_in_range() -> None:
    secret = secret_numbers(0)
    for _ in range(200):
        drawn = draw_patients(12, 0.5, secret)
        assert drawn == sorted(set(drawn))
        assert all(type(i) is int and 0 <= i < 12 for i in drawn)


def test_rate_one_takes_everybody_always() -> None:
    secret = secret_numbers(0)
    assert all(draw_patients(9, 1.0, secret) == list(range(9)) for _ in range(100))


def test_a_rate_below_the_grid_of_float32_is_met() -> None:
    # Coins of float32 fall on multiples of 2^-24: the zeros among them, eight times too many, would be taken.
    secret = secret_numbers(0)
    taken = sum(len(draw_patients(5_000_000, 2.0**-27, secret)) for _ in range(10))
    assert taken <= 1  # 0.4 expected, 3 with float32


def test_nobody_is_drawn_from_nobody() -> None:
    assert draw_patients(0, 0.5, secret_numbers(0)) == []


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.sample_rate"):
        draw_patients(5, rate, secret_numbers(0))

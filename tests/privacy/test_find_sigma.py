"""The noise that a budget asks for."""

from __future__ import annotations

import math

import pytest

from fedbrats.privacy.accounting import (
    SIGMA_TOLERANCE,
    BudgetError,
    Entry,
    find_sigma,
    gaussian_epsilon,
    rdp_epsilon,
)

DELTA = 1e-5
THIRTY = [Entry(1.0, 0.125, 400)]  # a site of 30 patients, 4 a step, 50 rounds of one pass


@pytest.mark.parametrize(("target", "sigma"), [(1, 10.31), (3, 3.89), (8, 1.79), (16, 1.15), (93.12, 0.5)])
def test_sigma_of_a_budget(target: float, sigma: float) -> None:
    found = find_sigma(target, DELTA, 0.125, 400)
    assert found == pytest.approx(sigma, rel=0.01)
    assert rdp_epsilon([Entry(found, 0.125, 400)], DELTA) <= target
    assert rdp_epsilon([Entry(found / (1 + 2 * SIGMA_TOLERANCE), 0.125, 400)], DELTA) > target


def test_sigma_on_top_of_what_is_spent() -> None:
    spent = [Entry(2.0, 0.125, 400)]  # 6.88
    found = find_sigma(8.0, DELTA, 0.125, 400, spent)
    assert found > 1.5 * find_sigma(8.0, DELTA, 0.125, 400)
    assert rdp_epsilon([*spent, Entry(found, 0.125, 400)], DELTA) <= 8.0
    assert rdp_epsilon([*spent, Entry(found / 1.002, 0.125, 400)], DELTA) > 8.0


def test_large_budgets_ask_for_little_noise() -> None:
    found = find_sigma(5000.0, DELTA, 1.0, 50)
    assert gaussian_epsilon(math.sqrt(50) / found, DELTA) <= 5000.0
    assert found < 0.1


def test_a_single_release_has_a_sigma() -> None:
    found = find_sigma(8.0, DELTA, 0.5, 1)
    assert 7.98 < rdp_epsilon([Entry(found, 0.5, 1)], DELTA) <= 8.0


def test_a_budget_that_is_spent_leaves_nothing() -> None:
    spent = rdp_epsilon(THIRTY, DELTA)
    with pytest.raises(BudgetError, match=r"20\.51 is spent"):
        find_sigma(spent, DELTA, 0.125, 8, THIRTY)
    with pytest.raises(BudgetError, match="least that can be certified"):
        find_sigma(0.001, DELTA, 0.125, 8)


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(0.0, 0.5, 1), (-1.0, 0.5, 1), (1.0, 0.0, 1), (1.0, 0.5, 0)]
)
def test_a_plan_without_releases_or_budget_has_no_sigma(target: float, rate: float, steps: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        find_sigma(target, DELTA, rate, steps)

"""Bayesian optimisation: the surrogate by hand, expected improvement by drawing, a minimum that is known."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.studies import gaussian_search
from fedbrats.studies.gaussian_search import (
    IMPROVEMENT,
    INITIAL,
    OPTIMUM,
    expected_improvement,
    search,
    surrogate,
)


def test_the_surrogate_of_two_points_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_search, "SCALES", (0.5,))
    monkeypatch.setattr(gaussian_search, "NUGGET", 0.0)
    mean, deviation = surrogate(
        np.array([[0.0], [1.0]]), np.array([1.0, 3.0]), np.array([[0.0], [0.25], [1.0]])
    )
    near, far, across = (np.exp(-2 * r**2) for r in (0.25, 0.75, 1.0))
    # Standardised the values are -1 and 1, so the weights are -1 / (1 - k) and 1 / (1 - k).
    assert mean == pytest.approx([1, 2 + (far - near) / (1 - across), 3])
    variance = 1 - (near**2 + far**2 - 2 * across * near * far) / (1 - across**2)
    assert deviation == pytest.approx([0, np.sqrt(variance), 0], abs=1e-7)


def test_expected_improvement_is_that_of_many_draws() -> None:
    mean, deviation, best = np.array([0.3, -0.2, 0.1]), np.array([0.5, 0.1, 0.0]), 0.0
    draws = np.random.default_rng(0).normal(mean, deviation, (200_000, 3))
    expected = np.maximum(0, best - draws).mean(0)
    np.testing.assert_allclose(expected_improvement(mean, deviation, best), expected, atol=2e-3)


def test_a_known_minimum_is_found_in_a_tenth_of_the_candidates_and_none_is_tried_twice() -> None:
    gammas, numbers = np.linspace(0.5, 1, 51), np.arange(3, 8)
    candidates = np.array([(g, n) for g in gammas for n in numbers])

    def loss(index: int) -> float:
        gamma, number = candidates[index]
        return float((4 * (gamma - 0.83)) ** 2 + ((number - 5) / 4) ** 2)

    found = search(loss, candidates, 6, 19, np.random.default_rng(0))
    assert [one.why for one in found] == [INITIAL] * 6 + [IMPROVEMENT, OPTIMUM] * 9 + [IMPROVEMENT]
    assert len({one.index for one in found}) == 25
    best = candidates[min(found, key=lambda one: one.loss).index]
    assert best == pytest.approx([0.83, 5], abs=0.011)


def test_it_ends_where_nothing_is_left() -> None:
    assert len(search(float, np.array([[0.0], [1.0], [2.0]]), 2, 20, np.random.default_rng(0))) == 3

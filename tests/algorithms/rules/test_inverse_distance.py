"""Inverse distance aggregation by hand."""

from __future__ import annotations

import pytest

from fedbrats.algorithms.base import Company
from fedbrats.algorithms.rules.inverse_distance import InverseDistance
from tests.algorithms.rules.made_replies import made


def test_a_round_by_hand() -> None:
    """(0, 0), (0, 0) and (9, 12): the mean is (3, 4), distances 5, 5 and 10, weights 2 : 2 : 1; cases do not count."""
    new = made(InverseDistance(), ("A", (0, 0), 0, 1), ("B", (0, 0), 5, 1), ("C", (9, 12), 10, 99))
    assert new["a"] == pytest.approx(9 / 5)
    assert new["b"] == pytest.approx(12 / 5)
    assert new["seen"] == pytest.approx((2 * 5 + 10) / 5)  # the same weights; it has no part in the distance


def test_equal_replies_come_out_as_they_went_in() -> None:
    assert made(InverseDistance(), ("A", (0.3, 7), 1, 1), ("B", (0.3, 7), 1, 5)) == {
        "a": 0.3,
        "b": 7,
        "seen": 1,
    }


def test_a_site_on_the_mean_does_not_become_all_of_it() -> None:
    """(0, 0), (2, 0) and on their mean (1, 0): a millionth of the largest distance at least."""
    new = made(InverseDistance(), ("A", (0, 0), 0, 1), ("B", (2, 0), 0, 1), ("C", (1, 0), 8, 1))
    assert new["a"] == pytest.approx(1.0)
    assert new["seen"] == pytest.approx(8 * 1e6 / (1e6 + 2))


def test_what_it_refuses() -> None:
    assert "privacy=central" in str(InverseDistance().refuses(Company(central_privacy=True)))

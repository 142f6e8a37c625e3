"""Bulyan by hand, and against a lie in a single number that Krum lets through."""

from __future__ import annotations

import pytest
import torch

from fedbrats.algorithms.rules.bulyan import Bulyan
from fedbrats.algorithms.rules.krum import Krum
from tests.algorithms.rules.test_trimmed_mean import made

SEVEN = [[0.0], [1.0], [2.0], [4.0], [8.0], [16.0], [100.0]]


def test_the_choice_by_hand() -> None:
    """n = 7, f = 1: five are chosen, each with the least sum over its n' - 3 neighbours among the n' that are left.

    Seven left, 4 neighbours: 0: 1+4+16+64 = 85, 1: 1+1+9+49 = 60, 2: 4+1+4+36 = 45, 4: 16+9+4+16 = 45, so 2 (first).
    Six left, 3: 0: 1+16+64 = 81, 1: 1+9+49 = 59, 4: 16+9+16 = 41, 8: 16+49+64 = 129, so 4.
    Five left, 2: 0: 1+64, 1: 1+49, 8: 49+64, so 1. Four left, 1: 0: 64, 8: 64, 16: 64, so 0. Three left, 1: 8.
    """
    values = torch.tensor(SEVEN, dtype=torch.float64)
    assert Bulyan().choose((values - values.T).square()) == [0, 1, 2, 3, 4]


def test_a_round_by_hand() -> None:
    """Of 0, 1, 2, 4, 8 the median is 2, and the n - 4 f = 3 closest to it are 2, 1 and (of 0 and 4) the smaller, 0."""
    assert made(Bulyan(), *SEVEN) == [1.0]


def test_a_single_number_that_is_far_off_is_left_out() -> None:
    honest = [[0.1 * i, *[4.0 * (j == i) for j in range(6)]] for i in range(6)]
    liar = [3.0, *[4.0 / 6] * 6]  # in the middle of all others but for one number
    assert made(Krum(), *honest, liar)[0] == 3.0
    assert 0 <= made(Bulyan(), *honest, liar)[0] <= 0.5


def test_it_needs_sites_enough() -> None:
    assert Bulyan(liars=2).least_sites == 11
    with pytest.raises(ValueError, match=r"strategy\.liars=0"):
        Bulyan(liars=0)

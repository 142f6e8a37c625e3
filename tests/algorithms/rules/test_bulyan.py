"""Bulyan by hand, and against a lie in a single number that Krum lets through."""

from __future__ import annotations

import pytest
import torch

from fedbrats.algorithms.rules.bulyan import Bulyan
from fedbrats.algorithms.rules.krum import Krum
from tests.algorithms.rules.test_trimmed_mean import made

SEVEN = [[0.0], [10.0], [11.0], [12.0], [13.0], [14.0], [100.0]]


def test_the_choice_by_hand() -> None:
    """n = 7, f = 1: five are chosen, each with the least sum over its n' - 3 neighbours among the n' that are left.

    Seven left, 4 neighbours: 10 has 1+4+9+16 = 30, 11 has 1+1+4+9 = 15, 12 has 1+1+4+4 = 10, the least.
    Six left, 3: 10: 1+9+16 = 26, 11: 1+4+9 = 14, 13: the same, so 11 (first). Five left, 2: 10: 9+16 = 25,
    13: 1+9 = 10, 14: 1+16 = 17, so 13. Four left, 1: 0: 100, 10: 16, 14: 16, so 10. Three left, 1: 0 and 14: 196, so 0.
    """
    values = torch.tensor(SEVEN, dtype=torch.float64)
    assert Bulyan().choose((values - values.T).square()) == [0, 1, 2, 3, 4]


def test_a_round_by_hand() -> None:
    """Of 0, 10, 11, 12, 13 the median is 11, and the n - 4 f = 3 closest to it are 10, 11 and 12."""
    assert made(Bulyan(), *SEVEN) == [11.0]


def test_a_single_number_that_is_far_off_is_left_out() -> None:
    honest = [[0.1 * i, *[4.0 * (j == i) for j in range(6)]] for i in range(6)]
    liar = [3.0, *[4.0 / 6] * 6]  # in the middle of all others but for one number
    assert made(Krum(), *honest, liar)[0] == 3.0
    assert 0 <= made(Bulyan(), *honest, liar)[0] <= 0.5


def test_it_needs_sites_enough() -> None:
    assert Bulyan(liars=2).least_sites == 11
    with pytest.raises(ValueError, match=r"strategy\.liars=0"):
        Bulyan(liars=0)

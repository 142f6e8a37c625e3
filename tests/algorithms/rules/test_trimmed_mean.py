"""The trimmed mean by hand, and against sites that lie."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.algorithms.base import Company, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.rules.trimmed_mean import TrimmedMean


def made(algorithm: FedAvg, *values: object, dtype: type = np.float32) -> list[float]:
    """What a rule makes of the arrays "w" of sites with unlike numbers of cases."""
    found = algorithm.collect(Memory())
    for index, value in enumerate(values):
        found.add(Reply(f"site {index}", {"w": np.array(value, dtype)}, cases=10 * index + 1, steps=1))
    new, memory = algorithm.step({}, found, Memory(), Group(len(values), frozenset({"w"})))
    assert (memory, new["w"].numpy().dtype) == (Memory(), dtype)
    return new["w"].tolist()


def test_each_number_loses_its_own_ends() -> None:
    assert made(TrimmedMean(), [1, 9], [2, 8], [3, 1], [9, 2]) == [2.5, 5]
    assert made(TrimmedMean(liars=2), [5], [1], [2], [9], [3]) == [3]


def test_so_many_liars_cannot_move_it_out_of_the_others() -> None:
    for lie in (1e30, -1e30):
        assert 1 <= made(TrimmedMean(liars=2), [1.0], [2.0], [3.0], [lie], [lie])[0] <= 3
        assert not 1 <= made(TrimmedMean(liars=1), [1.0], [2.0], [3.0], [lie], [lie])[0] <= 3


def test_it_needs_sites_enough() -> None:
    assert TrimmedMean(liars=2).least_sites == TrimmedMean(liars=2, quorum=0.1).needed(9) == 5
    assert TrimmedMean(liars=1, quorum=1.0).needed(9) == 9
    with pytest.raises(ValueError, match=r"strategy\.liars=0"):
        TrimmedMean(liars=0)
    assert "privacy=central" in str(TrimmedMean().refuses(Company(central_privacy=True)))

"""Krum and Multi-Krum by hand, and against sites that lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Group, Memory, Reply
from fedbrats.algorithms.rules.krum import Krum, krum_sums, squared_distances
from tests.algorithms.rules.test_trimmed_mean import made


def test_the_sums_by_hand() -> None:
    """Sites at 0, 1, 3, 7, 100, f = 1, so two neighbours each: 1 + 9, 1 + 4, 4 + 9, 16 + 36, 93^2 + 97^2."""
    replies = [
        Reply(str(v), {"w": np.array([v]), "seen": np.array([v * v])}, 1, 1) for v in (0.0, 1, 3, 7, 100)
    ]
    sums = krum_sums(squared_distances(replies, ["w"]), 1)
    assert sums.tolist() == pytest.approx([10, 5, 13, 52, 93**2 + 97**2])


def test_the_model_is_that_of_the_site_with_the_least_sum() -> None:
    assert made(Krum(), [0.0], [1.0], [3.0], [7.0], [100.0]) == [1]
    assert made(Krum(chosen=2), [0.0], [1.0], [3.0], [7.0], [100.0]) == [0.5]
    assert made(Krum(), [100.0], [2.0], [2.0], [2.0], [1.0]) == [2]


def test_what_is_not_trained_comes_from_the_same_sites() -> None:
    found = Krum().collect(Memory())
    for value, seen in ((0.0, 5.0), (1.0, 6.0), (3.0, 1.0), (7.0, 1.0), (100.0, 1.0)):
        found.add(Reply("A", {"w": np.array([value]), "seen": np.array([seen])}, 1, 1))
    new, _ = Krum().step({}, found, Memory(), Group(5, frozenset({"w"})))
    assert new["seen"].tolist() == [6.0]


def test_distances_are_those_of_numpy_over_all_arrays() -> None:
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    replies = [Reply("A", {"a": v[:2], "b": v[2:].reshape(3, 1)}, 1, 1) for v in values]
    found = squared_distances(replies, ["a", "b"])
    expected = ((values[:, None].astype(float) - values[None]) ** 2).sum(-1)
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_liars_that_agree_are_not_chosen() -> None:
    honest = [[0.1 * i] for i in range(5)]
    assert 0 <= made(Krum(liars=2), [50.0], [50.0], *honest)[0] <= 0.5


def test_it_needs_sites_enough() -> None:
    assert (Krum(liars=2).least_sites, Krum(liars=1, chosen=4).least_sites) == (7, 7)
    for key in ("liars", "chosen"):
        with pytest.raises(ValueError, match=rf"strategy\.{key}=0"):
            Krum(**{key: 0})

"""Norm clipping by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Group, Memory, Reply
from fedbrats.algorithms.rules.norm_clipping import NormClipping


def made(max_norm: float, *replies: tuple[list[float], float, int]) -> dict[str, list[float]]:
    """From a = 1, b = 1 and the statistic 0: the new arrays, by what every site says of them and its cases."""
    algorithm = NormClipping(max_norm=max_norm)
    found = algorithm.collect(Memory())
    for (a, b), seen, cases in replies:
        arrays = {"a": np.array([a]), "b": np.array([b]), "seen": np.array([seen])}
        found.add(Reply("A", arrays, cases, 1))
    old = {
        name: torch.tensor([v], dtype=torch.float64) for name, v in (("a", 1.0), ("b", 1.0), ("seen", 0.0))
    }
    new, _ = algorithm.step(old, found, Memory(), Group(2, frozenset({"a", "b"})))
    return {name: array.tolist() for name, array in new.items()}


def test_a_round_by_hand() -> None:
    """A change of (3, 4) is shortened to (1.2, 1.6), one of (0, -1) stays; cases 3 and 1; the statistic is a mean."""
    new = made(2.0, ([4.0, 5.0], 8.0, 3), ([1.0, 0.0], 4.0, 1))
    assert new["a"] == [pytest.approx(1 + 0.75 * 1.2)]
    assert new["b"] == [pytest.approx(1 + 0.75 * 1.6 - 0.25)]
    assert new["seen"] == [pytest.approx(7.0)]


def test_nothing_is_made_longer() -> None:
    assert made(1e9, ([4.0, 5.0], 0.0, 1))["a"] == [pytest.approx(4.0)]


def test_no_site_moves_the_model_further_than_its_share_of_the_norm() -> None:
    new = made(1.0, ([1.0, 1.0], 0.0, 3), ([1e30, 1.0], 0.0, 1))
    assert new["a"] == [pytest.approx(1.25)]


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_value_names_its_key(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"strategy\.max_norm="):
        NormClipping(max_norm=wrong)

"""Percentile clipping by hand, and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Group, Memory, Reply
from fedbrats.algorithms.rules.percentile_clipping import PercentileClipping
from tests.algorithms.rules.made_replies import made


def test_a_round_by_hand() -> None:
    """Changes of a: 1, -2, 9; their median size is 2, so 1, -2, 2 by 1, 1, 2 cases."""
    replies = (("A", (2, 1), 3, 1), ("B", (-1, 1), 3, 1), ("C", (10, 1), 6, 2))
    new = made(PercentileClipping(percentile=50.0), *replies)
    assert new["a"] == pytest.approx(1 + (1 - 2 + 2 * 2) / 4)
    assert new["b"] == 1
    assert new["seen"] == pytest.approx(3.0)  # 3, 3, 6 cut to 3
    assert made(PercentileClipping(percentile=100.0), *replies)["a"] == pytest.approx(1 + (1 - 2 + 9 * 2) / 4)


def test_the_percentile_is_over_all_numbers_of_an_array_and_all_sites() -> None:
    rng = np.random.default_rng(0)
    old, replies = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(5, 3, 4)).astype(np.float32)
    rule = PercentileClipping(percentile=80.0)
    found = rule.collect(Memory())
    for number, array in enumerate(replies):
        found.add(Reply(str(number), {"w": array}, number + 1, 1))
    new, _ = rule.step({"w": torch.from_numpy(old)}, found, Memory(), Group(5, frozenset({"w"})))
    limit = np.percentile(np.abs(replies - old), 80)
    expected = np.average(old + np.clip(replies - old, -limit, limit), axis=0, weights=[1, 2, 3, 4, 5])
    np.testing.assert_allclose(new["w"].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [0.0, -1.0, 100.5, float("nan")])
def test_a_bad_value_names_its_key(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"strategy\.percentile="):
        PercentileClipping(percentile=wrong)

"""Dynamic weight averaging by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedbrats.algorithms.base import Company, Memory, Reply
from fedbrats.algorithms.dwa import LOSSES, DynamicWeightAveraging
from tests.algorithms.test_fedcostwavg import step


def test_two_rounds_by_hand() -> None:
    """Sites at 0 and 4, cases have no part in it.

    Round 1: both ratios are 1, so 2. Round 2: A's loss falls from 1 to .5, B's from .5 to .4: exp(.5 / 2) and
    exp(.8 / 2), so 4 e^.4 / (e^.25 + e^.4) = 2.1497.
    """
    rule = DynamicWeightAveraging()
    first, memory = step(rule, [("A", 0.0, 1, 1.0), ("B", 4.0, 99, 0.5)], Memory())
    assert first == pytest.approx(2.0)
    second, memory = step(rule, [("A", 0.0, 1, 0.5), ("B", 4.0, 99, 0.4)], memory)
    assert second == pytest.approx(4 * math.exp(0.4) / (math.exp(0.25) + math.exp(0.4)))
    assert memory.facts == {LOSSES: {"A": 0.5, "B": 0.4}}


def test_temperature_evens_out() -> None:
    memory = Memory(facts={LOSSES: {"A": 1.0, "B": 1.0}})
    replies = [("A", 0.0, 1, 0.1), ("B", 4.0, 1, 1.0)]
    sharp, _ = step(DynamicWeightAveraging(temperature=0.1), replies, memory)
    blunt, _ = step(DynamicWeightAveraging(temperature=100.0), replies, memory)
    assert sharp == pytest.approx(4 / (1 + math.exp(-9)))
    assert blunt == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("loss", [None, 0.0, float("inf"), float("nan"), 1e6])
def test_a_loss_that_cannot_weigh_is_refused_and_leaves_no_trace(loss: float | None) -> None:
    found = DynamicWeightAveraging(temperature=1.0).collect(Memory(facts={LOSSES: {"A": 1.0}}))
    with pytest.raises(ValueError, match="training loss"):
        found.add(Reply("A", {"w": np.ones(1)}, 1, steps=1, loss=loss))
    assert (found.replies, found.losses) == (0, {})


def test_what_it_refuses() -> None:
    assert "privacy=dp_sgd" in str(DynamicWeightAveraging().refuses(Company(patient_privacy=True)))
    with pytest.raises(ValueError, match=r"strategy\.temperature=0"):
        DynamicWeightAveraging(temperature=0.0)

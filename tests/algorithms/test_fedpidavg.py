"""FedPIDAvg by hand: weights by cases, by the fall of each site's cost and by the sum of its last costs."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.algorithms.base import Company, Memory, Reply
from fedbrats.algorithms.fedpidavg import COSTS, FedPIDAvg
from tests.algorithms.test_fedcostwavg import Said, step


def round_of(replies: list[Said], memory: Memory, **shares: float) -> tuple[float, Memory]:
    return step(FedPIDAvg(**shares), replies, memory)


def test_two_rounds_by_hand() -> None:
    """Sites of 1 and 3 cases at 0 and 4, so 3 by cases; alpha, beta, gamma = 0.4, 0.4, 0.2.

    Round 1: costs 1 and 0.5, none fallen: 0.8 * 3 + 0.2 * 4 * 0.5 / 1.5 = 2.6667.
    Round 2: costs 0.7 and 0.4 fall by 0.3 and 0.1: by fall 4 * 0.1 / 0.4 = 1; sums 1.7 and 0.9: 4 * 0.9 / 2.6 = 1.3846;
    0.4 * 3 + 0.4 * 1 + 0.2 * 1.3846 = 1.8769.
    """
    shares = {"alpha": 0.4, "beta": 0.4, "gamma": 0.2}
    first, memory = round_of([("A", 0.0, 1, 1.0), ("B", 4.0, 3, 0.5)], Memory(), **shares)
    assert first == pytest.approx(2.6667, abs=5e-5)
    second, memory = round_of([("A", 0.0, 1, 0.7), ("B", 4.0, 3, 0.4)], memory, **shares)
    assert second == pytest.approx(1.8769, abs=5e-5)
    assert memory.facts == {COSTS: {"A": [1.0, 0.7], "B": [0.5, 0.4]}}


def test_a_cost_that_has_risen_weighs_nothing_in_the_falls() -> None:
    memory = Memory(facts={COSTS: {"A": [1.0], "B": [1.0]}})
    replies: list[Said] = [("A", 0.0, 1, 2.0), ("B", 4.0, 3, 0.9)]
    assert round_of(replies, memory, alpha=0.0, beta=1.0, gamma=0.0)[0] == pytest.approx(4.0)


def test_six_costs_are_summed() -> None:
    memory = Memory(facts={COSTS: {"A": [99.0, 1, 1, 1, 1, 1], "B": [3.0]}})
    new, memory = round_of([("A", 0.0, 1, 1.0), ("B", 9.0, 1, 3.0)], memory, alpha=0.0, beta=0.0, gamma=1.0)
    assert new == pytest.approx(9 * 6 / 12)
    assert memory.facts[COSTS]["A"] == [1.0] * 6


@pytest.mark.parametrize("loss", [None, 0.0, -0.1, float("inf"), float("nan")])
def test_a_cost_that_cannot_weigh_is_refused_and_leaves_no_trace(loss: float | None) -> None:
    found = FedPIDAvg().collect(Memory())
    with pytest.raises(ValueError, match=f"training loss is {loss}, but strategy=fedpidavg needs a positive"):
        found.add(Reply("A", {"w": np.ones(1)}, 1, steps=1, loss=loss))
    assert (found.replies, found.costs) == (0, {})


def test_what_it_cannot_be_combined_with() -> None:
    assert "privacy=dp_sgd" in str(FedPIDAvg().refuses(Company(patient_privacy=True)))
    assert "privacy=central" in str(FedPIDAvg().refuses(Company(central_privacy=True)))


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"gamma": 1.1}, {"alpha": 0.5}, {"alpha": float("nan")}])
def test_a_bad_value_names_its_key(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.{next(iter(wrong))}={next(iter(wrong.values()))}"):
        FedPIDAvg(**wrong)

"""FedCostWAvg by hand: weights by cases and by how far each site's cost has fallen."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.algorithms.base import Company, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.fedcostwavg import FedCostWAvg

GROUP = Group(sites=2, trainable=frozenset({"w"}))


Said = tuple[str, float, int, float | None]  # site, weight, cases, loss


def step(algorithm: FedAvg, replies: list[Said], memory: Memory) -> tuple[float, Memory]:
    """What sites say in, the new weight and memory out."""
    found = algorithm.collect(memory)
    for site, value, cases, loss in replies:
        found.add(Reply(site, {"w": np.array([value], np.float64)}, cases, steps=1, loss=loss))
    new, after = algorithm.step({}, found, memory, GROUP)
    return float(new["w"]), after


def round_of(replies: list[Said], memory: Memory, alpha: float = 0.5) -> tuple[float, Memory]:
    return step(FedCostWAvg(alpha=alpha), replies, memory)


def test_two_rounds_by_hand() -> None:
    """Sites of 1 and 3 cases at 0 and 4. Round 1: by cases 3, by cost (1, 1) 2, half of each 2.5.

    Round 2: costs fall from 1 to 0.5 (r = 2) and stay at 0.5 (r = 1): by cost (2 * 0 + 1 * 4) / 3 = 4/3, so 13/6.
    """
    first, memory = round_of([("A", 0.0, 1, 1.0), ("B", 4.0, 3, 0.5)], Memory())
    assert first == pytest.approx(2.5)
    assert memory.facts == {"costs": {"A": 1.0, "B": 0.5}}
    second, memory = round_of([("A", 0.0, 1, 0.5), ("B", 4.0, 3, 0.5)], memory)
    assert second == pytest.approx(13 / 6)
    assert memory.facts == {"costs": {"A": 0.5, "B": 0.5}}


def test_the_ends_of_alpha() -> None:
    memory = Memory(facts={"costs": {"A": 1.0, "B": 1.0}})
    replies: list[Said] = [("A", 0.0, 1, 0.25), ("B", 4.0, 3, 1.0)]
    assert round_of(replies, memory, alpha=1.0)[0] == pytest.approx(3.0)  # FedAvg
    assert round_of(replies, memory, alpha=0.0)[0] == pytest.approx(0.8)  # (4 * 0 + 1 * 4) / 5


def test_a_site_that_missed_a_round_is_measured_by_its_last_cost() -> None:
    memory = Memory(facts={"costs": {"A": 1.0, "B": 0.8}})
    _, memory = round_of([("A", 0.0, 1, 0.5)], memory)
    assert memory.facts["costs"] == {"A": 0.5, "B": 0.8}
    # r_A = 0.5 / 0.5, r_B = 0.8 / 0.2
    assert round_of([("A", 0.0, 1, 0.5), ("B", 5.0, 1, 0.2)], memory, alpha=0.0)[0] == pytest.approx(4.0)


@pytest.mark.parametrize("loss", [None, 0.0, -0.1, float("inf"), float("nan")])
def test_a_cost_without_a_ratio_is_refused_and_leaves_no_trace(loss: float | None) -> None:
    found = FedCostWAvg().collect(Memory())
    with pytest.raises(
        ValueError, match=f"training loss is {loss}, but strategy=fedcostwavg needs a positive"
    ):
        found.add(Reply("A", {"w": np.ones(1)}, 1, steps=1, loss=loss))
    assert (found.replies, found.costs) == (0, {})


def test_what_it_cannot_be_combined_with() -> None:
    assert "training losses, which stay at home" in str(FedCostWAvg().refuses(Company(patient_privacy=True)))
    assert "privacy=central" in str(FedCostWAvg().refuses(Company(central_privacy=True)))
    assert FedCostWAvg().refuses(Company()) is None


def test_a_bad_share_is_named() -> None:
    with pytest.raises(ValueError, match=r"strategy\.alpha=1\.5"):
        FedCostWAvg(alpha=1.5)

"""BrainTorrent by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.algorithms import braintorrent
from fedbrats.algorithms.base import Company, Group, Memory, NoModel, Reply
from fedbrats.algorithms.braintorrent import NEXT, SEEN, TURN, VERSIONS, BrainTorrent, drawn

SITES = ("A", "B", "C")
GROUP = Group(3, frozenset({"w"}), SITES)
CASES = {"A": 1, "B": 3, "C": 4}


def test_peers_are_drawn_alike_often() -> None:
    turns = [drawn(SITES, turn) for turn in range(300)]
    assert all(abs(turns.count(site) - 100) < 33 for site in SITES)  # 4 standard deviations of 300 x 1/3
    assert turns == [drawn(SITES, turn) for turn in range(300)]


def test_four_rounds_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns A, B, A, C, A; they train to 8, 4, 2 and 6.

    After A: B, which has nothing, begins with A's 8. After B: A gathers its own 8 (1 case) and B's 4 (3): 5. After A:
    C gathers A's 2 and B's 4: (2 + 12) / 4 = 3.5. After C: A gathers its own 2 (1 case) and C's 6 (4), as it has seen
    this version of B: 26 / 5.
    """
    turns = "ABACA"
    monkeypatch.setattr(braintorrent, "drawn", lambda sites, turn: turns[turn])
    rule, memory, begun = BrainTorrent(), Memory(), []
    for turn, trained in enumerate((8.0, 4.0, 2.0, 6.0)):
        (site,) = rule.asked(SITES, turn + 1, 9, memory)
        assert site == turns[turn]
        found = rule.collect(memory)
        found.add(Reply(site, {"w": np.full(2, trained, np.float32)}, CASES[site], 1))
        new, memory = rule.step({"w": torch.zeros(2)}, found, memory, GROUP)
        begun.append(new["w"].tolist())
    assert begun == [[8.0, 8.0], [5.0, 5.0], [3.5, 3.5], [pytest.approx(5.2)] * 2]
    assert (memory.facts[TURN], memory.facts[VERSIONS]) == (4, {"A": 2, "B": 1, "C": 1})
    assert memory.facts[SEEN]["A"] == {"A": 2, "B": 1, "C": 1}


def test_a_peers_own_model_counts_though_it_has_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gathered and did not train, as after it had left for a while: its own 8 (1 case) and B's 4 (3) are 5."""
    monkeypatch.setattr(braintorrent, "drawn", lambda sites, turn: "A")
    facts = {TURN: 1, VERSIONS: {"A": 1}, SEEN: {"A": {"A": 1}}, "cases": {"A": 1}}
    rule, memory = BrainTorrent(), Memory({"A/w": torch.tensor([8.0])}, facts)
    found = rule.collect(memory)
    found.add(Reply("B", {"w": np.array([4.0], np.float32)}, 3, 1))
    assert rule.step({"w": torch.zeros(1)}, found, memory, GROUP)[0]["w"].tolist() == [5.0]


def test_a_lost_round_leaves_the_turn_where_it_is() -> None:
    rule = BrainTorrent()
    assert rule.asked(SITES, 1, 9, Memory()) == rule.asked(SITES, 2, 9, Memory())
    with pytest.raises(NoModel, match="0 peers"):
        rule.step({}, rule.collect(Memory()), Memory(), GROUP)
    assert rule.asked([], 1, 9, Memory()) == []
    assert rule.asked(SITES, 3, 9, Memory(facts={TURN: 2, NEXT: "C"})) == ["C"]
    assert rule.asked(("A", "B"), 3, 9, Memory(facts={TURN: 2, NEXT: "C"})) == [drawn(("A", "B"), 2)]


def test_what_it_refuses() -> None:
    assert "secure_aggregation" in str(BrainTorrent().refuses(Company(secure_aggregation=True)))

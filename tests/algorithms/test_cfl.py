"""Clustered federated learning by hand: when a group is split, where, and what its halves go on from."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Company, Group, Memory, Reply
from fedbrats.algorithms.cfl import CFL, bipartition

NAMES = ("A", "B", "C", "D")
GROUP = Group(4, frozenset({"w"}), NAMES)
OLD = {"w": torch.ones(2), "seen": torch.zeros(1)}
# A and B pull one way, C and D the other: the mean change is short.
APART = {"A": (3.0, 1.0), "B": (3.0, -1.0), "C": (-3.0, 1.0), "D": (-3.0, -1.0)}


def rounds(algorithm: CFL, *moves: dict[str, tuple[float, float]]) -> tuple[dict[str, list[float]], Memory]:
    """What sites are given after rounds in which each has moved by so much from what it was given."""
    memory, model = Memory(), OLD
    for move in moves:
        found = algorithm.collect(memory)
        for site, change in move.items():
            start = algorithm.given(model, memory, algorithm.version(memory, site))["w"]
            arrays = {"w": (start + torch.tensor(change)).numpy(), "seen": np.float32([1])}
            found.add(Reply(site, arrays, 1, steps=1))
        model, memory = algorithm.step(model, found, memory, GROUP)
    given = {s: algorithm.given(model, memory, algorithm.version(memory, s))["w"].tolist() for s in NAMES}
    return given, memory


def test_a_group_at_odds_is_split_and_each_half_goes_its_way() -> None:
    given, memory = rounds(CFL(wait=0), APART)
    assert memory.facts["groups"] == {"A": "1.1", "B": "1.1", "C": "1.2", "D": "1.2"}
    assert given == {"A": [4, 1], "B": [4, 1], "C": [-2, 1], "D": [-2, 1]}
    together = {"A": (1.0, 0.0), "B": (1.0, 0.0), "C": (-1.0, 0.0), "D": (-1.0, 0.0)}
    given, memory = rounds(CFL(wait=0), APART, together)
    assert set(memory.facts["groups"].values()) == {"1.1", "1.2"}
    assert given == {"A": [5, 1], "B": [5, 1], "C": [-3, 1], "D": [-3, 1]}


def test_before_its_time_it_is_federated_averaging() -> None:
    given, memory = rounds(CFL(wait=1), APART)
    assert (memory.facts["groups"], given["A"], given["C"]) == (dict.fromkeys(NAMES, "1"), [1, 1], [1, 1])
    assert set(rounds(CFL(wait=1), APART, APART)[1].facts["groups"].values()) == {"1.1", "1.2"}


def test_eps_compares_the_mean_with_the_longest_change() -> None:
    """Changes 4, 4, -2, -2 along one axis: the mean is 1, a quarter of the longest."""
    move = {"A": (4.0, 0.0), "B": (4.0, 0.0), "C": (-2.0, 0.0), "D": (-2.0, 0.0)}
    assert "1" in rounds(CFL(wait=0, eps=0.25), move)[1].facts["groups"].values()
    assert "1" not in rounds(CFL(wait=0, eps=0.251), move)[1].facts["groups"].values()


def test_gamma_max_asks_how_far_the_halves_point_apart() -> None:
    """The largest cosine across is (-9 + 1) / 10 = -0.8, so sqrt(1.8 / 2)."""
    apart = math.sqrt(0.9)
    assert "1" in rounds(CFL(wait=0, gamma_max=apart + 1e-6), APART)[1].facts["groups"].values()
    assert "1" not in rounds(CFL(wait=0, gamma_max=apart - 1e-6), APART)[1].facts["groups"].values()


def test_a_group_is_split_only_when_all_of_it_has_answered() -> None:
    three = {site: APART[site] for site in ("A", "B", "C")}
    assert rounds(CFL(wait=0, eps=10), three)[1].facts["groups"] == dict.fromkeys(NAMES, "1")


def test_a_site_that_has_changed_nothing_points_nowhere() -> None:
    still = {**APART, "D": (0.0, 0.0)}
    assert rounds(CFL(wait=0, eps=10), still)[1].facts["groups"] == dict.fromkeys(NAMES, "1")


@pytest.mark.parametrize("seed", range(20))
def test_the_halves_are_those_whose_largest_cosine_across_is_smallest(seed: int) -> None:
    """Against all bipartitions tried one by one."""
    rng = np.random.default_rng(seed)
    changes = rng.standard_normal((6, 3))
    changes /= np.linalg.norm(changes, axis=1, keepdims=True)
    cosines = changes @ changes.T
    halves = bipartition(cosines)
    assert halves[0]
    assert 0 < halves.sum() < 6
    masks = [np.array([True, *rest]) for rest in itertools.product([True, False], repeat=5) if not all(rest)]
    best = min(cosines[np.ix_(mask, ~mask)].max() for mask in masks)
    assert cosines[np.ix_(halves, ~halves)].max() == pytest.approx(best)


def test_wrong_values_and_company() -> None:
    for wrong, message in (
        ({"eps": 0.0}, "strategy.eps=0.0"),
        ({"gamma_max": 1.0}, "strategy.gamma_max=1.0"),
        ({"wait": -1}, "strategy.wait=-1"),
        ({"groups": {"a": ["A"]}}, "strategy=clustered is told them"),
    ):
        with pytest.raises(ValueError, match=message):
            CFL(**wrong)  # type: ignore[arg-type]
    assert CFL().refuses(Company()) is None
    assert CFL().refuses_sites(NAMES) is None
    assert "choose one of them" in str(CFL().refuses(Company(personal=True)))

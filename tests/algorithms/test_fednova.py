"""FedNova by hand, and where it finds the minimum that FedAvg misses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedbrats.algorithms.base import Company, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.fednova import FedNova

GROUP = Group(sites=2, trainable=frozenset({"w"}))


def step(
    algorithm: FedAvg, x: float, *replies: tuple[float, int, int], seen: float = 0.0
) -> dict[str, float]:
    """The new model from x and the weight, cases and steps of every site."""
    found = algorithm.collect(Memory())
    for number, (weight, cases, steps) in enumerate(replies):
        arrays = {"w": np.array([weight]), "seen": np.array([float(number)])}
        found.add(Reply(f"site {number}", arrays, cases, steps))
    old = {name: torch.tensor([value], dtype=torch.float64) for name, value in (("w", x), ("seen", seen))}
    new, _ = algorithm.step(old, found, Memory(), GROUP)
    return {name: float(array) for name, array in new.items()}


def test_a_round_by_hand() -> None:
    """x = 1; 3 of 4 cases go 2 in 4 steps, 1 of 4 goes -1 in 1 step.

    T = (3 * 4 + 1 * 1) / 4 = 3.25; sum p_k (y_k - x) / t_k = 0.75 * 0.5 - 0.25 * 1 = 0.125; x = 1 + 3.25 * 0.125.
    """
    new = step(FedNova(), 1.0, (3.0, 3, 4), (0.0, 1, 1))
    assert new["w"] == pytest.approx(1.40625)
    assert new["seen"] == pytest.approx(0.25)  # by cases, as it is


def test_with_equal_steps_it_is_fedavg() -> None:
    sites = ((3.0, 3, 5), (-1.0, 1, 5), (0.5, 2, 5))
    assert step(FedNova(), 1.0, *sites)["w"] == pytest.approx(step(FedAvg(), 1.0, *sites)["w"])


def test_unequal_steps_do_not_move_the_minimum() -> None:
    """Parabolas around 1 and -1: the mean of the minima is 0. FedAvg ends nearer to the site that takes more steps."""

    def ends(algorithm: FedAvg) -> float:
        x = 3.0
        for _ in range(400):
            sites = []
            for b, steps in ((1.0, 8), (-1.0, 1)):
                y = x
                for _ in range(steps):
                    y -= 0.01 * (y - b)
                sites.append((y, 1, steps))
            x = step(algorithm, x, *sites)["w"]
        return x

    assert abs(ends(FedNova())) < 0.03
    assert ends(FedAvg()) > 0.7


def test_a_site_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="0 steps"):
        FedNova().collect(Memory()).add(Reply("A", {"w": np.zeros(1)}, 1, 0))


def test_what_it_cannot_be_combined_with() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    plain = torch.optim.SGD(weights, lr=0.1)
    assert FedNova().refuses(Company(optimizer=plain)) is None
    for other in (torch.optim.SGD(weights, lr=0.1, momentum=0.9), torch.optim.AdamW(weights)):
        assert "train/optimizer=sgd_plain" in str(FedNova().refuses(Company(optimizer=other)))
    assert "privacy=central" in str(FedNova().refuses(Company(optimizer=plain, central_privacy=True)))

"""q-FedAvg by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Company, Group, Memory, Reply
from fedbrats.algorithms.qfedavg import QFedAvg


def made(algorithm: QFedAvg, *replies: tuple[float, float, float]) -> dict[str, float]:
    """From x = 1 and the statistic 0: what sites of unlike cases make of them, by weight, statistic and loss."""
    found = algorithm.collect(Memory())
    for number, (weight, seen, loss) in enumerate(replies):
        arrays = {"w": np.array([weight]), "seen": np.array([seen])}
        found.add(Reply("A", arrays, cases=10 * number + 1, steps=1, loss=loss))
    old = {name: torch.tensor([v], dtype=torch.float64) for name, v in (("w", 1.0), ("seen", 0.0))}
    new, _ = algorithm.step(old, found, Memory(), Group(2, frozenset({"w"})))
    return {name: float(array) for name, array in new.items()}


def test_a_round_by_hand() -> None:
    """q = 2, L = 10; site 1: y = 0.9, F = 2, D = 1, F^2 D = 4, h = 2 * 2 * 1 + 10 * 4 = 44; site 2: y = 1.2, F = 1,
    D = -2, F^2 D = -2, h = 2 * 1 * 4 + 10 = 18. x = 1 - (4 - 2) / 62.
    """
    new = made(QFedAvg(q=2, site_lr=0.1), (0.9, 4.0, 2.0), (1.2, 6.0, 1.0))
    assert new["w"] == pytest.approx(1 - 2 / 62)
    assert new["seen"] == pytest.approx(5.0)


def test_with_q_0_it_is_the_mean_of_the_sites_whatever_their_losses() -> None:
    assert made(QFedAvg(q=0), (0.0, 0.0, 5.0), (3.0, 0.0, 0.1), (3.0, 0.0, 1.0))["w"] == pytest.approx(2.0)


def test_the_larger_q_the_more_the_larger_loss_draws() -> None:
    found = [made(QFedAvg(q=q, site_lr=0.1), (0.99, 0.0, 3.0), (1.01, 0.0, 1.0))["w"] for q in (0, 1, 4)]
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("loss", [None, 0.0, -1.0, float("inf"), float("nan")])
def test_a_loss_without_a_power_is_refused(loss: float | None) -> None:
    with pytest.raises(ValueError, match=f"training loss is {loss}, but strategy=qfedavg needs a positive"):
        QFedAvg().collect(Memory()).add(Reply("A", {"w": np.ones(1)}, 1, steps=1, loss=loss))


def test_what_it_cannot_be_combined_with() -> None:
    for company in (Company(patient_privacy=True), Company(central_privacy=True)):
        assert QFedAvg().refuses(company) is not None


@pytest.mark.parametrize(("key", "value"), [("q", -1.0), ("site_lr", 0.0), ("q", float("nan"))])
def test_a_bad_value_names_its_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.{key}={value}"):
        QFedAvg(**{key: value})


def test_the_learning_rate_of_an_adaptive_optimiser_is_no_step_of_gradient_descent() -> None:
    """On the phantom the model of an AdamW federation stayed where it began: Dice .09."""
    weights = [torch.nn.Parameter(torch.zeros(1))]
    adam, plain = torch.optim.AdamW(weights, lr=0.01), torch.optim.SGD(weights, lr=0.01)
    assert "strategy.site_lr" in str(QFedAvg(site_lr=0.01).refuses(Company(optimizer=adam)))
    assert QFedAvg(site_lr=0.01).refuses(Company(optimizer=plain)) is None
    assert QFedAvg(site_lr=1.0).refuses(Company(optimizer=adam)) is None  # set by hand
    assert QFedAvg(site_lr=0.01, q=0.0).refuses(Company(optimizer=adam)) is None  # equal weights, whatever L

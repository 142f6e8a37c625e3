"""MR-MTL on two sites with one weight each: by hand, and at both ends of lambda."""

from __future__ import annotations

import pytest
import torch

from fedbrats.algorithms.fedprox import FedProx
from fedbrats.personalization.base import Personalization, snapshot
from fedbrats.personalization.mr_mtl import MrMtl
from tests.personalization.toy_work import ConvWork, Point, ToyWork, conv_network


def federation(lam: float, rounds: int, targets: tuple[float, ...] = (0.0, 4.0)) -> tuple[float, list[float]]:
    """Mean and own models after `rounds` rounds of one step from 1.0 with rate 0.1."""
    mean, states = 1.0, [{} for _ in targets]
    for round_ in range(1, rounds + 1):
        sent = []
        for k, target in enumerate(targets):
            work = ToyWork(Point(mean), states[k], target=target, steps=1, round_=round_)
            MrMtl(lam=lam).round(work)
            states[k] = work.state
            sent.append(work.x)
        mean = sum(sent) / len(sent)
    return mean, [float(state["x"]) for state in states]


def test_two_rounds_by_hand() -> None:
    """Targets 0 and 4, lambda 2, from 1.

    Round 1 has no pull: 1 - 0.1 * 1 = 0.9 and 1 + 0.1 * 3 = 1.3, mean 1.1. Round 2 goes on from the sites' own:
    0.9 - 0.1 (0.9 + 2 (0.9 - 1.1)) = 0.85 and 1.3 - 0.1 (-2.7 + 2 (1.3 - 1.1)) = 1.53.
    """
    mean, own = federation(2.0, 2)
    assert own == pytest.approx([0.85, 1.53], abs=1e-12)
    assert mean == pytest.approx(1.19, abs=1e-12)


@pytest.mark.parametrize("lam", [0.5, 3.0, 9.0])
def test_where_it_ends(lam: float) -> None:
    """Stationary is w_k - c_k + lambda (w_k - w_bar) = 0, so w_k = (c_k + lambda w_bar) / (1 + lambda), w_bar = 2.

    The difference between the sites is 4 / (1 + lambda): with lambda it goes to the one model of FedAvg.
    """
    mean, own = federation(lam, 250)
    assert mean == pytest.approx(2.0, abs=1e-9)
    assert own == pytest.approx([2 * lam / (1 + lam), (4 + 2 * lam) / (1 + lam)], abs=1e-9)


def test_lambda_zero_is_local_training_bit_for_bit() -> None:
    """Whatever is received after the first round."""
    alone, network, state = conv_network(), conv_network(), {}
    for round_ in (1, 2, 3):
        expected = Personalization().round(ConvWork(alone, round_=round_))
        if round_ > 1:
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.fill_(9.0)  # what comes from the server
        work = ConvWork(network, state, round_=round_)
        assert MrMtl(lam=0.0).round(work) == expected
        state = work.state
        sent, own = snapshot(network), snapshot(alone)
        assert all(torch.equal(sent[name], own[name]) for name in own)


def test_the_algorithms_own_term_is_anchored_at_the_mean_too() -> None:
    """lambda = 1 with FedProx mu = 1 is lambda = 2."""
    state = {"x": torch.tensor([5.0], dtype=torch.float64)}
    work = ToyWork(Point(1.0), dict(state), steps=1, algorithm=FedProx(mu=1.0))
    MrMtl(lam=1.0).round(work)
    assert work.x == pytest.approx(5 - 0.1 * (5 + 2 * 4), abs=1e-12)


def test_it_is_the_released_work_and_the_personal_model_is_its_own() -> None:
    work = ToyWork(Point(1.0), target=2.0)
    MrMtl(lam=1.0).round(work)
    assert work.done == [("train", 2, 1.0)]  # under differential privacy the private step
    test = ToyWork(Point(9.0), work.state)
    MrMtl(lam=1.0).personal(test)
    assert test.x == work.x != 9.0
    fresh = ToyWork(Point(9.0))
    MrMtl().personal(fresh)
    assert fresh.x == 9.0


def test_options_and_privacy() -> None:
    with pytest.raises(ValueError, match=r"personalization\.lam"):
        MrMtl(lam=-1.0)
    assert MrMtl().keeps_state
    assert MrMtl().unsound_with_dp() is None

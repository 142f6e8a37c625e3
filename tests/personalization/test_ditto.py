"""Ditto: the personal model by hand, and a global model that does not notice it."""

from __future__ import annotations

import pytest
import torch

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.fedprox import FedProx
from fedbrats.personalization.base import Personalization, snapshot
from fedbrats.personalization.ditto import Ditto
from tests.personalization.toy_work import ConvWork, Point, ToyWork, conv_network


def test_two_rounds_by_hand() -> None:
    """Target 2, rate 0.1, lambda 0.5, two steps.

    Round 1, w_t = 1: w = 1.1, 1.19. v = 1.1, then 1.1 - 0.1 (-0.9 + 0.5 * 0.1) = 1.185.
    Round 2, w_t = 3: v = 1.185 - 0.1 (-0.815 + 0.5 * -1.815) = 1.35725, then 1.35725 + 0.1 (0.64275 + 0.821375).
    """
    ditto = Ditto(lam=0.5)
    work = ToyWork(Point(1.0), target=2.0)
    loss = ditto.round(work)
    assert work.x == pytest.approx(1.19, abs=1e-12)
    assert loss == pytest.approx((0.5 + 0.405) / 2, abs=1e-12)  # of w: (1 - 2)^2 / 2 and (1.1 - 2)^2 / 2
    assert float(work.state["x"]) == pytest.approx(1.185, abs=1e-12)
    work = ToyWork(Point(3.0), work.state, target=2.0, round_=2)
    ditto.round(work)
    assert work.x == pytest.approx(2 + 0.81, abs=1e-12)
    assert float(work.state["x"]) == pytest.approx(1.5036625, abs=1e-12)
    test = ToyWork(Point(9.0), work.state)
    ditto.personal(test)
    assert test.x == pytest.approx(1.5036625, abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.5, 4.0])
def test_the_personal_model_ends_between_its_own_optimum_and_the_global_model(lam: float) -> None:
    """The minimum of (v - c)^2 / 2 + lambda / 2 (v - w)^2 is (c + lambda w) / (1 + lambda)."""
    ditto, work = Ditto(lam=lam, steps=400), ToyWork(Point(1.0), target=5.0)
    ditto.round(work)
    assert float(work.state["x"]) == pytest.approx((5 + lam) / (1 + lam), abs=1e-9)
    assert work.done == [("train", 2, 1.0), ("personal", 400, 1.0)]


@pytest.mark.parametrize("algorithm", [FedAvg(), FedProx(mu=0.3)])
def test_what_is_sent_is_bit_for_bit_what_is_sent_without(algorithm: FedAvg) -> None:
    plain, other = conv_network(), conv_network()
    state: dict[str, torch.Tensor] = {}
    for round_ in (1, 2, 3):
        work = ConvWork(plain, round_=round_, steps=4, algorithm=algorithm)
        expected = Personalization().round(work)
        work = ConvWork(other, state, round_=round_, steps=4, algorithm=algorithm)
        assert Ditto(lam=0.7, steps=3).round(work) == expected
        state = work.state
        sent, own = snapshot(other), snapshot(plain)
        assert all(torch.equal(sent[name], own[name]) for name in own)
        assert not torch.equal(state["0.weight"], sent["0.weight"])
        assert not torch.equal(state["1.running_mean"], sent["1.running_mean"])


def test_without_a_model_of_its_own_a_site_has_the_global_one() -> None:
    work = ToyWork(Point(4.0))
    Ditto(lam=1.0).personal(work)
    assert work.x == 4.0


def test_options_and_privacy() -> None:
    for options, key in (({"lam": -1.0}, r"\.lam"), ({"steps": 0}, r"\.steps")):
        with pytest.raises(ValueError, match=f"personalization{key}"):
            Ditto(**options)
    assert Ditto().keeps_state
    reason = Ditto().unsound_with_dp()
    assert reason is not None
    assert "mr_mtl" in reason
    assert "finetune" in reason


def test_one_step_is_enough() -> None:
    assert Ditto(steps=1).steps == 1

"""APFL: Algorithm 1 and the rule for alpha by hand, and a global model that does not notice them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.fedprox import FedProx
from fedbrats.personalization.apfl import Apfl
from fedbrats.personalization.base import Personalization, snapshot
from fedbrats.training.loop import TrainingError
from tests.personalization.toy_work import ConvWork, Point, ToyWork, conv_network


def remembered(v: float, alpha: float) -> dict[str, Tensor]:
    return {"own/x": torch.tensor([v], dtype=torch.float64), "alpha": torch.tensor(alpha)}


def test_two_steps_by_hand() -> None:
    """Target 0, rate 0.1, w = 1, v = 3, alpha = 0.5: the mixture is 2.

    w = 1 - 0.1 * 1, v = 3 - 0.1 * 0.5 * 2, alpha = 0.5 - 0.1 (3 - 1) 2 = 0.1. Then the mixture is 0.29 + 0.81 = 1.1:
    w = 0.81, v = 2.9 - 0.1 * 0.1 * 1.1 = 2.889, alpha = 0.1 - 0.1 * 2 * 1.1 < 0, so 0.
    """
    one = ToyWork(Point(1.0), remembered(3.0, 0.5), steps=1)
    Apfl().round(one)
    assert one.x == pytest.approx(0.9, abs=1e-12)
    assert float(one.state["own/x"]) == pytest.approx(2.9, abs=1e-12)
    assert float(one.state["alpha"]) == pytest.approx(0.1, abs=1e-6)
    two = ToyWork(Point(1.0), remembered(3.0, 0.5), steps=2)
    loss = Apfl().round(two)
    assert two.x == pytest.approx(0.81, abs=1e-12)
    assert float(two.state["own/x"]) == pytest.approx(2.889, abs=1e-7)
    assert float(two.state["alpha"]) == 0.0
    assert loss == pytest.approx((0.5 + 0.405) / 2, abs=1e-12)  # of w


def test_alpha_stays_in_the_unit_interval_at_the_other_end() -> None:
    """Target 9: the mixture 2 must grow and v > w, so alpha does: 0.5 + 0.1 * 2 * 7 > 1."""
    work = ToyWork(Point(1.0), remembered(3.0, 0.5), steps=1, target=9.0)
    Apfl().round(work)
    assert float(work.state["alpha"]) == 1.0


def test_both_models_are_trained_in_training_mode_whatever_was_before() -> None:
    work = ConvWork(conv_network().eval())
    before = {name: buffer.clone() for name, buffer in work.network.named_buffers()}
    Apfl().round(work)
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    for name in means:
        assert not torch.equal(work.network.get_buffer(name), before[name])
        assert not torch.equal(work.state[f"own/{name}"], before[name])


def test_a_fixed_share_does_not_move() -> None:
    work = ToyWork(Point(1.0), steps=3, target=9.0)
    Apfl(alpha=0.25, adaptive=False).round(work)
    assert float(work.state["alpha"]) == 0.25
    # v begins at the received 1.0; in the first step the mixture is 1.0 too: v = 1 + 0.1 * 0.25 * 8 = 1.2, w = 1.8.
    first = ToyWork(Point(1.0), steps=1, target=9.0)
    Apfl(alpha=0.25, adaptive=False).round(first)
    assert float(first.state["own/x"]) == pytest.approx(1.2, abs=1e-12)
    assert first.x == pytest.approx(1.8, abs=1e-12)


def test_the_ends_of_the_share() -> None:
    """1: v is local training and never sees w. 0: the site's own model is the global one."""
    v, work = 1.0, ToyWork(Point(1.0), steps=5, target=4.0)
    Apfl(alpha=1.0, adaptive=False).round(work)
    for _ in range(5):
        v -= 0.1 * (v - 4.0)
    assert float(work.state["own/x"]) == pytest.approx(v, abs=1e-12)
    test = ToyWork(Point(8.0), work.state)
    Apfl().personal(test)
    assert test.x == pytest.approx(v, abs=1e-12)
    test = ToyWork(Point(8.0), remembered(3.0, 0.0))
    Apfl().personal(test)
    assert test.x == 8.0


def test_the_personal_model_is_the_mixture_with_what_was_received() -> None:
    work = ToyWork(Point(5.0), remembered(2.0, 0.25))
    Apfl().personal(work)
    assert work.x == pytest.approx(0.25 * 2 + 0.75 * 5, abs=1e-12)
    fresh = ToyWork(Point(5.0))
    Apfl(alpha=1.0).personal(fresh)
    assert fresh.x == 5.0


@pytest.mark.parametrize("algorithm", [FedAvg(), FedProx(mu=0.3)])
def test_what_is_sent_is_bit_for_bit_what_is_sent_without(algorithm: FedAvg) -> None:
    """With dropout, BatchNorm and momentum; the mixture has statistics of its own."""
    plain, other = conv_network(), conv_network()
    state: dict[str, Tensor] = {}
    for round_ in (1, 2, 3):
        expected = Personalization().round(ConvWork(plain, round_=round_, steps=4, algorithm=algorithm))
        work = ConvWork(other, state, round_=round_, steps=4, algorithm=algorithm)
        assert Apfl(alpha=0.6).round(work) == expected
        state = work.state
        sent, own = snapshot(other), snapshot(plain)
        assert all(torch.equal(sent[name], own[name]) for name in own)
        assert not torch.equal(state["own/0.weight"], sent["0.weight"])
    assert 0 < float(state["alpha"]) < 1
    assert float(state["alpha"]) != pytest.approx(0.6)
    assert int(state["own/1.num_batches_tracked"]) == 12
    # In round 1 both begin alike; afterwards v's statistics are those of the mixture, not of w.
    assert not torch.equal(state["own/1.running_mean"], sent["1.running_mean"])
    test = ConvWork(other, state)
    Apfl().personal(test)
    assert torch.equal(other.state_dict()["1.running_mean"], state["own/1.running_mean"])
    assert not any(tensor.requires_grad for tensor in state.values())


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"train\.optimizer\.lr"):
        Apfl().round(ToyWork(Point(float("nan"))))
    with pytest.raises(TrainingError, match="own model nan"):
        Apfl().round(ToyWork(Point(1.0), remembered(float("nan"), 0.5)))


def test_options_and_privacy() -> None:
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"personalization\.alpha"):
            Apfl(alpha=alpha)
    assert Apfl().keeps_state
    assert "mr_mtl" in (Apfl().unsound_with_dp() or "")

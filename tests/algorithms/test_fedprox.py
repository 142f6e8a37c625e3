"""FedProx: mu/2 ||w - w_t||^2 with a frozen w_t, in every batch of the round."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Beside, Company, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.fedprox import AdaptiveFedProx, FedProx
from fedbrats.losses.compound import DiceCE
from fedbrats.training.loop import train_locally


def line(weight: tuple[float, float] = (1.0, 2.0), bias: float = 3.0) -> nn.Linear:
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([weight]))
        network.bias.fill_(bias)
    return network


def test_term_by_hand() -> None:
    """w_t = (1, 2, 3), w = (2, 0, 3.5), mu = 0.4: 0.2 * (1 + 4 + 0.25) = 1.05; unsquared it would be 0.458."""
    network = line()
    term = FedProx(mu=0.4).begin(network, Beside())
    assert term is not None
    assert term().item() == 0.0
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[2.0, 0.0]]))
        network.bias.fill_(3.5)
    assert term().item() == pytest.approx(1.05, rel=1e-6)


def test_term_and_gradient_are_right_on_every_batch() -> None:
    # T1: the recipe with a generator gives the term on the first batch and 0 on all that follow.
    network, mu = line(), 0.4
    start = [p.detach().clone() for p in network.parameters()]
    term = FedProx(mu=mu).begin(network, Beside())
    assert term is not None
    for batch in (1, 2, 3):
        with torch.no_grad():
            for p in network.parameters():
                p += 0.5 * batch
        network.zero_grad()
        value = term()
        value.backward()
        moved = [p.detach() - w0 for p, w0 in zip(network.parameters(), start, strict=True)]
        assert value.item() == pytest.approx(mu / 2 * sum(float((d**2).sum()) for d in moved)), batch
        assert value.item() > 0, batch
        for p, d in zip(network.parameters(), moved, strict=True):
            torch.testing.assert_close(p.grad, mu * d)


def test_anchor_is_frozen_and_new_in_every_round() -> None:
    network, algorithm = line(), FedProx(mu=2.0)
    first = algorithm.begin(network, Beside())
    with torch.no_grad():
        network.bias += 1.0
    second = algorithm.begin(network, Beside())
    assert first is not None
    assert second is not None
    assert first().item() == pytest.approx(1.0)
    assert second().item() == 0.0


def test_frozen_parameters_have_no_part_in_it() -> None:
    network = line()
    network.bias.requires_grad_(False)
    term = FedProx(mu=1.0).begin(network, Beside())
    with torch.no_grad():
        network.bias += 10.0
    assert term is not None
    assert term().item() == 0.0


def test_mu_zero_adds_no_term_and_a_bad_mu_is_named() -> None:
    assert FedProx(mu=0.0).begin(line(), Beside()) is None
    for mu in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=r"strategy\.mu"):
            FedProx(mu=mu)
    with pytest.raises(ValueError, match=r"strategy\.quorum"):
        FedProx(mu=0.1, quorum=2)


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(5)
    for _ in range(steps):
        labels = torch.randint(0, 4, (2, 6, 6, 6), generator=rng).to(torch.uint8)
        yield labels[:, None].float() + torch.randn(2, 4, 6, 6, 6, generator=rng), labels


def trained(algorithm: FedAvg, steps: int = 6) -> tuple[list[Tensor], list[Tensor], float]:
    """Weights before and after `steps` steps from a fixed start, and the mean training loss."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv3d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 3, 1))
    start = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    loss = train_locally(
        network, optimizer, DiceCE(), batches(steps), penalty=algorithm.begin(network, Beside())
    )
    return start, [p.detach() for p in network.parameters()], loss


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    return float(sum(((x - y) ** 2).sum() for x, y in zip(a, b, strict=True)) ** 0.5)


def test_mu_zero_trains_like_fedavg_bit_for_bit() -> None:
    _, averaged, loss_averaged = trained(FedAvg())
    _, proximal, loss_proximal = trained(FedProx(mu=0.0))
    assert all(torch.equal(a, b) for a, b in zip(averaged, proximal, strict=True))
    assert loss_averaged == loss_proximal


def test_the_larger_mu_the_closer_to_the_start() -> None:
    distances = []
    for algorithm in (FedAvg(), FedProx(mu=0.1), FedProx(mu=1.0)):
        start, end, _ = trained(algorithm)
        distances.append(distance(start, end))
    assert distances[0] > distances[1] > distances[2] > 0


def test_two_steps_by_hand() -> None:
    """SGD with rate r on F + mu/2 (w - w0)^2: the first step has no proximal gradient, the second mu (w1 - w0).

    So w2(FedProx) - w2(FedAvg) = -r mu (w1 - w0), w1 being the same for both.
    """
    start, once, _ = trained(FedAvg(), steps=1)
    _, averaged, _ = trained(FedAvg(), steps=2)
    _, proximal, _ = trained(FedProx(mu=0.3), steps=2)
    for w0, w1, a, p in zip(start, once, averaged, proximal, strict=True):
        torch.testing.assert_close(p - a, -0.5 * 0.3 * (w1 - w0), atol=1e-6, rtol=1e-3)


def test_the_reported_loss_leaves_the_penalty_out() -> None:
    _, _, one = trained(FedAvg(), steps=1)
    _, _, other = trained(FedProx(mu=5.0), steps=1)
    assert one == other


# Adaptive


def adapted(losses: list[float], mu: float = 0.2, **settings: float) -> list[float]:
    """mu of each round and of the one after the last, by the mean losses of the rounds."""
    algorithm, memory = AdaptiveFedProx(mu=mu, **settings), Memory()
    said = [algorithm.said(memory)["mu"]]
    for loss in losses:
        found = algorithm.collect(memory)
        for cases, more in ((1, 0.3), (3, -0.1)):  # whose mean by cases is `loss`
            found.add(Reply("A", {"w": np.ones(1, np.float32)}, cases, 1, loss + more))
        _, memory = algorithm.step({}, found, memory, Group(2, frozenset({"w"})))
        assert memory.facts["loss"] == pytest.approx(loss)
        said.append(algorithm.said(memory)["mu"])
    return said


def test_mu_follows_the_loss_by_hand() -> None:
    assert adapted([1.0, 1.1, 1.05, 1.2]) == pytest.approx([0.2, 0.2, 0.3, 0.3, 0.4])  # up at every rise
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    assert adapted(falling) == pytest.approx([0.2] * 6 + [0.1, 0.1])  # down after five falls in a row
    assert adapted(falling, patience=2) == pytest.approx(
        [0.2, 0.2, 0.2, 0.1, 0.1, 0.0, 0.0, 0.0]
    )  # never below 0
    assert adapted([1.0, 0.9, 0.9, 0.8], patience=2) == pytest.approx([0.2] * 5)  # as before is no fall


def test_sites_work_with_the_mu_that_they_are_told() -> None:
    network = line()
    term = AdaptiveFedProx(mu=9.0).begin(network, Beside(numbers={"mu": 0.4}))
    assert term is not None
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[2.0, 0.0]]))
        network.bias.fill_(3.5)
    assert term().item() == pytest.approx(1.05, rel=1e-6)
    assert AdaptiveFedProx(mu=9.0).begin(network, Beside(numbers={"mu": 0.0})) is None


def test_without_losses_it_cannot_adapt() -> None:
    for company, key in (
        (Company(patient_privacy=True), "privacy=dp_sgd"),
        (Company(central_privacy=True), "privacy=central"),
        (Company(secure_aggregation=True), "privacy.secure_aggregation=true"),
    ):
        assert key in str(AdaptiveFedProx().refuses(company))
    with pytest.raises(ValueError, match="training loss is None"):
        AdaptiveFedProx().collect(Memory()).add(Reply("A", {"w": np.ones(1)}, 1, 1))
    for wrong in ({"step_size": 0.0}, {"patience": 0}):
        with pytest.raises(ValueError, match=rf"strategy\.{next(iter(wrong))}"):
            AdaptiveFedProx(**wrong)

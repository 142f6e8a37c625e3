"""MOON: its term by hand, what it captures, and that it leaves nothing behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedbrats.algorithms.base import Beside, Company
from fedbrats.algorithms.moon import Moon, contrast, feeding_layer


def a_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(2, 3, 1), nn.ReLU(), nn.Conv3d(3, 4, 1), nn.Conv3d(4, 1, 1))


def arrays(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_the_term_by_hand() -> None:
    """z = (1, 0); the global one is (1, 0), similarity 1; the last one (0, 1), similarity 0; T = .5.

    -log(e^2 / (e^2 + e^0)) = log(1 + e^-2).
    """
    z, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    maps = [t[:, :, None, None, None].expand(1, 2, 2, 3, 4) for t in (z, other)]
    assert contrast(maps[0], maps[0], maps[1], 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert contrast(maps[0], maps[1], maps[0], 0.5).item() == pytest.approx(math.log(1 + math.exp(2)))


def test_the_representation_is_what_feeds_the_output() -> None:
    assert feeding_layer(a_network()) == "2"
    with pytest.raises(ValueError, match=r"strategy\.layer: the network has no layer before"):
        feeding_layer(nn.Sequential(nn.Conv3d(1, 1, 1)))
    with pytest.raises(ValueError, match=r"strategy\.layer=x: the network has no such module"):
        Moon(layer="x").begin(a_network(), Beside(kept=arrays(a_network(1))))


def test_it_is_of_the_last_batch_and_of_the_three_models() -> None:
    network, before = a_network(0), a_network(1)
    start = arrays(network)
    penalty = Moon(mu=2.0).begin(network, Beside(start=start, kept=arrays(before)))
    assert penalty is not None
    with torch.no_grad():
        network[0].weight += 0.3  # trained on since
    frozen = a_network(0)
    for seed in (3, 4):
        images = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
        network(images)
        z, towards, away = (part[:3](images).flatten(2).mean(2) for part in (network, frozen, before))
        sims = [torch.cosine_similarity(z, other) / 0.5 for other in (towards, away)]
        by_hand = -2.0 * (sims[0].exp() / (sims[0].exp() + sims[1].exp())).log().mean()
        torch.testing.assert_close(penalty(), by_hand)
    penalty().backward()
    assert network[0].weight.grad is not None
    assert float(network[0].weight.grad.abs().sum()) > 0
    assert network[3].weight.grad is None  # the output layer has no part in it


def test_it_keeps_the_trained_model_and_takes_its_hooks_off() -> None:
    network, moon = a_network(0), Moon()
    start = arrays(network)
    assert moon.begin(network, Beside(start=start)) is None  # a site's first round has no last model
    left = moon.end(network, Beside(start=start), 1, 0.1)
    assert left.kept.keys() == start.keys()
    assert not left.sent
    moon.begin(network, Beside(start=start, kept=left.kept))
    moon.begin(network, Beside(start=start, kept=left.kept))  # after a round that was broken off
    assert sum(len(m._forward_hooks) for m in network.modules()) == 2
    moon.end(network, Beside(start=start, kept=left.kept), 1, 0.1)
    assert sum(len(m._forward_hooks) for m in network.modules()) == 0


def test_mu_zero_is_fedavg_and_privacy_is_refused() -> None:
    assert Moon(mu=0.0).begin(a_network(), Beside(kept=arrays(a_network(1)))) is None
    assert "privacy=dp_sgd" in str(Moon().refuses(Company(patient_privacy=True)))
    assert "strategy.layer=x: the network has no such" in str(
        Moon(layer="x").refuses(Company(network=a_network()))
    )
    assert Moon(layer="0").refuses(Company(network=a_network())) is None
    assert "this personalization" in str(Moon().refuses(Company(own_start=True)))
    for wrong in ({"mu": -1.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=rf"strategy\.{next(iter(wrong))}"):
            Moon(**wrong)

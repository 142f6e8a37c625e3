"""The defaults, what stays and what travels, and copies of a whole model."""

from __future__ import annotations

import math

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from fedbrats.algorithms.fedprox import FedProx
from fedbrats.arrays import travelling
from fedbrats.config.targets import ConfigError
from fedbrats.personalization.base import (
    Personalization,
    added,
    check_strength,
    local_and_travelling,
    restore,
    snapshot,
)
from tests.personalization.networks import PATCH
from tests.personalization.toy_work import Point, ToyWork, conv_network


def dynunet() -> DynUNet:
    """Registers its blocks twice."""
    return DynUNet(3, 4, 3, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 16), norm_name="batch")


def test_without_personalisation_a_round_is_the_algorithms_own() -> None:
    """x = 1, target 3, rate 0.1, mu = 2 anchored at 1: 1.2, then 1.2 + 0.1 (1.8 - 0.4) = 1.34."""
    work = ToyWork(Point(1.0), target=3.0, algorithm=FedProx(mu=2.0))
    none = Personalization()
    loss = none.round(work)
    assert work.x == pytest.approx(1.34, abs=1e-12)
    assert loss == pytest.approx((2.0 + 1.62) / 2, abs=1e-12)
    assert (work.done, work.state) == ([("train", 2, 1.0)], {})
    none.personal(work)
    assert work.x == pytest.approx(1.34, abs=1e-12)
    assert (none.stays(conv_network(), PATCH), none.unsound_with_dp(), none.keeps_state, none.unseen) == (
        (),
        None,
        False,
        "",
    )


def test_unseen_is_no_option_where_nothing_stays() -> None:
    with pytest.raises(TypeError):
        Personalization(unseen="average")  # type: ignore[call-arg]


def test_lists_are_in_order_of_registration() -> None:
    home, away = local_and_travelling(conv_network(), ["6.bias", "1.running_var", "1.weight"])
    assert home == ["1.weight", "6.bias", "1.running_var"]
    assert away == [
        "0.weight",
        "1.bias",
        "4.weight",
        "4.bias",
        "5.weight",
        "5.bias",
        "6.weight",
        "1.running_mean",
    ]


def test_each_array_of_a_network_with_aliases_is_listed_once() -> None:
    network = dynunet()
    stays = [name for name in travelling(network) if "norm" in name]
    home, away = local_and_travelling(network, stays)
    assert home == stays
    assert set(home).isdisjoint(away)
    assert sorted([*home, *away]) == sorted(travelling(network))
    assert len(network.state_dict()) > len(home) + len(away)


def test_unknown_names_and_an_empty_exchange_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'1\.num_batches_tracked'"):
        local_and_travelling(conv_network(), ["1.num_batches_tracked"])
    with pytest.raises(ConfigError, match="all 11 arrays of Sequential would stay"):
        local_and_travelling(conv_network(), travelling(conv_network()))


def test_a_snapshot_is_a_whole_model_and_no_view() -> None:
    network = nn.Sequential(nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6)).to(memory_format=torch.channels_last_3d)
    assert not network[0].weight.is_contiguous()
    before = snapshot(network)
    assert list(before) == list(network.state_dict())
    assert "1.num_batches_tracked" in before
    assert all(tensor.is_contiguous() for tensor in before.values())
    network(torch.randn(2, 4, 3, 3, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    assert int(before["1.num_batches_tracked"]) == 0
    layout = network[0].weight.stride()
    restore(network, before)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network[0].weight.stride() == layout
    assert all(p.requires_grad for p in network.parameters())


def test_a_snapshot_has_no_aliases_and_another_network_refuses_it() -> None:
    tied = nn.ModuleList([nn.Conv3d(2, 2, 1), nn.Conv3d(2, 2, 1)])
    tied[1].weight = tied[0].weight
    assert list(snapshot(tied)) == ["0.weight", "0.bias", "1.bias"]
    with pytest.raises(ValueError, match=r"1\.bias"):
        restore(tied, {"0.weight": tied[0].weight, "0.bias": tied[0].bias})


def test_terms_are_added() -> None:
    one, two = (lambda: torch.tensor(1.0)), (lambda: torch.tensor(2.0))
    assert added(None, None) is None
    assert added(one, None) is one
    assert added(None, two) is two
    both = added(one, two)
    assert both is not None
    assert float(both()) == 3.0


@pytest.mark.parametrize("lam", [-0.1, math.inf, math.nan])
def test_a_strength_is_a_finite_number(lam: float) -> None:
    check_strength(0.0)
    with pytest.raises(ValueError, match=r"personalization\.lam"):
        check_strength(lam)

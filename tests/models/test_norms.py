"""Norm arrays, counted by hand; names say nothing."""

from __future__ import annotations

import pytest
from torch import nn

from fedbrats.arrays import travelling
from fedbrats.models.networks.residual_unet import residual_unet
from fedbrats.models.networks.segresnet import segresnet
from fedbrats.models.norms import NORMS, norm_arrays
from tests.personalization.networks import basic_unet, dynunet


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        # Two per residual unit on the way down and at the bottom, one after the only transposed convolution.
        (residual_unet(channels=(8, 16), norm="batch"), 5),
        (residual_unet(channels=(8, 16, 32, 64), norm="batch"), 3 * 2 + 2 + 3 + 2),
        # Two per block (1 + 1 + 1 blocks), one before the last convolution.
        (segresnet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,), norm="batch"), 7),
        (dynunet(), 10),
        (basic_unet(), 18),
    ],
)
def test_batch_norm_of_monai_is_all_found_and_its_name_finds_none(network: nn.Module, layers: int) -> None:
    found = norm_arrays(network)
    assert len(found) == len(set(found)) == 4 * layers
    assert sum(name.endswith(("running_mean", "running_var")) for name in found) == 2 * layers
    assert set(found) <= travelling(network).keys()
    assert list(found) == [name for name in travelling(network) if name in found]
    assert not any("bn" in name for name in network.state_dict())  # the usual recipe matches no key
    assert (
        len(norm_arrays(network, parameters=False))
        == len(norm_arrays(network, statistics=False))
        == 2 * layers
    )
    assert not any("running" in name for name in norm_arrays(network, statistics=False))
    assert all("running" in name for name in norm_arrays(network, parameters=False))
    assert not any("num_batches" in name for name in found)


def test_a_network_that_registers_its_blocks_twice_has_them_once() -> None:
    network = dynunet()
    everything = [name for name in network.state_dict() if "norm" in name and "num_batches" not in name]
    assert len(everything) == 80
    assert len(norm_arrays(network)) == 40


def test_layers_that_share_a_weight_list_it_once_under_its_first_name() -> None:
    network = nn.Sequential(nn.BatchNorm3d(2), nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2))
    network[2].weight = network[0].weight
    assert norm_arrays(network, statistics=False) == ("0.weight", "0.bias", "2.bias")
    only_later = nn.Sequential(nn.PReLU(2), nn.BatchNorm3d(2))
    only_later[1].weight = only_later[0].weight  # the surviving name is not that of the norm
    assert norm_arrays(only_later, statistics=False) == ("0.weight", "1.bias")


def test_every_kind_of_batch_norm() -> None:
    class Mine(nn.BatchNorm3d):
        """A subclass that holds a layer of another kind."""

        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.gate = nn.Conv3d(width, width, 1)

    network = nn.ModuleDict(
        {
            "one": nn.BatchNorm1d(2),
            "two": nn.BatchNorm2d(2),
            "sync": nn.SyncBatchNorm(2),
            "mine": Mine(2),
            "plain": nn.BatchNorm3d(2, affine=False),
            "fresh": nn.BatchNorm3d(2, track_running_stats=False),
            "neither": nn.BatchNorm3d(2, affine=False, track_running_stats=False),
            "bn_in_name_only": nn.GroupNorm(1, 2),
        }
    )
    full = [f"{name}.{key}" for name in ("one", "two", "sync", "mine") for key in ("weight", "bias")]
    assert norm_arrays(network, statistics=False) == (*full, "fresh.weight", "fresh.bias")
    statistics = [
        f"{name}.running_{key}" for name in ("one", "two", "sync", "mine", "plain") for key in ("mean", "var")
    ]
    assert norm_arrays(network, parameters=False) == tuple(statistics)
    assert norm_arrays(network) == (*full, "fresh.weight", "fresh.bias", *statistics)


def test_every_kind_of_norm() -> None:
    network = nn.Sequential(
        nn.GroupNorm(1, 2),
        nn.InstanceNorm3d(2),
        nn.InstanceNorm3d(2, affine=True),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.LayerNorm(2),
        nn.RMSNorm(2),
        nn.BatchNorm3d(2, affine=False),
        nn.PReLU(),
    )
    named = [f"{i}.{key}" for i in (0, 2, 4) for key in ("weight", "bias")]
    running = [f"{i}.running_{key}" for i in (3, 6) for key in ("mean", "var")]
    assert norm_arrays(network, NORMS) == (*named, "5.weight", *running)

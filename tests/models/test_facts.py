"""What is found by looking at a network, against networks small enough to count by hand."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from fedbrats.arrays import travelling
from fedbrats.models import facts
from fedbrats.models.networks.residual_unet import residual_unet


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(4, 8, 3, padding=1),  # 4 * 8 * 27 + 8 = 872
        nn.BatchNorm3d(8),  # 16, and 16 numbers of statistics
        nn.ReLU(),
        nn.Conv3d(8, 3, 1),  # 27
    )


def test_batch_norm_is_found_by_type_and_not_by_name() -> None:
    found = facts.batch_norm_arrays(small())
    assert found.parameters == ("1.weight", "1.bias")
    assert found.statistics == ("1.running_mean", "1.running_var")
    monai = facts.batch_norm_arrays(residual_unet(channels=(8, 16), norm="batch"))
    assert monai.statistics
    assert not any(
        "bn" in name for name in (*monai.parameters, *monai.statistics)
    )  # the trap of `"bn" in name`
    assert set(monai.statistics) <= travelling(residual_unet(channels=(8, 16), norm="batch")).keys()


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_other_norms_are_not_batch_norm(norm: str) -> None:
    network = residual_unet(channels=(8, 16), norm=norm)
    assert facts.batch_norm_arrays(network) == facts.BatchNormArrays((), ())
    assert facts.mixing_modules(network) == []


def test_a_batch_norm_without_statistics_still_mixes() -> None:
    network = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    assert facts.mixing_modules(network) == ["1"]
    assert facts.batch_norm_arrays(network).statistics == ()


def test_instance_norm_that_keeps_statistics_leaves_a_trace_of_the_batch() -> None:
    plain, tracking = nn.InstanceNorm3d(2), nn.InstanceNorm3d(2, track_running_stats=True)
    assert facts.mixing_modules(nn.Sequential(plain, tracking)) == ["1"]


def test_counts_of_a_network_done_by_hand() -> None:
    assert facts.parameter_count(small()) == 872 + 16 + 27
    assert facts.travelling_bytes(small()) == 4 * (872 + 16 + 16 + 27)
    assert facts.norm_layers(small()) == "BatchNorm 1"
    assert facts.norm_layers(nn.Sequential(nn.Conv2d(1, 1, 1))) == "none"

    class Mine(nn.LayerNorm):
        """A kind of its own."""

    mixed = nn.Sequential(Mine(3), nn.InstanceNorm3d(2), nn.InstanceNorm2d(2), nn.GroupNorm(1, 2))
    assert facts.norm_layers(mixed) == "GroupNorm 1, InstanceNorm 2, LayerNorm 1"


def test_a_network_that_registers_its_weights_twice_counts_them_once() -> None:
    network = DynUNet(
        spatial_dims=3,
        in_channels=4,
        out_channels=3,
        kernel_size=(3, 3, 3),
        strides=(1, 2, 2),
        upsample_kernel_size=(2, 2),
        filters=(4, 8, 16),
    )
    keys = len(network.state_dict())
    assert len(travelling(network)) < keys
    once = sum(t.numel() for t in {t.data_ptr(): t for t in network.state_dict().values()}.values())
    assert facts.parameter_count(network) == once
    assert facts.travelling_bytes(network) == 4 * once


def test_dropout_counts_only_when_it_drops() -> None:
    assert facts.has_dropout(nn.Sequential(nn.Dropout3d(0.1)))
    assert not facts.has_dropout(nn.Sequential(nn.Dropout3d(0.0), nn.ReLU()))


def test_memory_of_a_step_by_hand() -> None:
    """A convolution keeps its input; so does the next one. ReLU keeps its output, which is that input: one storage."""
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv3d(4, 8, 1, bias=False), nn.ReLU(), nn.Conv3d(8, 3, 1, bias=False))
    voxels = 2 * 8**3
    assert facts.kept_bytes(network, (8, 8, 8), batch=2) == 4 * voxels * (4 + 8)
    assert facts.training_bytes(network, (8, 8, 8), batch=2) == 4 * voxels * 12 + 16 * (32 + 24)
    assert facts.kept_bytes(network, (8, 8, 8), batch=4) == 2 * facts.kept_bytes(network, (8, 8, 8), batch=2)

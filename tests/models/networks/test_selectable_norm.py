"""SegResNet and residual U-Net: size, shapes, heads, and a normalisation that really is what its name says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedbrats.models.networks.residual_unet import residual_unet
from fedbrats.models.networks.segresnet import segresnet
from fedbrats.personalization.heads import head_modules

NORMS = {"batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d, "group": nn.GroupNorm}


def small_segresnet(norm: str) -> nn.Module:
    return segresnet(init_filters=8, blocks_down=(1, 1, 2), blocks_up=(1, 1), norm=norm)


def small_unet(norm: str) -> nn.Module:
    return residual_unet(channels=(8, 16, 32), norm=norm)


NETWORKS = [small_segresnet, small_unet]


def norms_of(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, tuple(NORMS.values()))]


def test_segresnet_16_has_the_published_number_of_parameters() -> None:
    # 4,702,227 in the NVFlare BraTS18 research example and in MONAI's own network with 4 inputs and 3 outputs.
    assert sum(p.numel() for p in segresnet().parameters()) == 4_702_227


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("norm", NORMS)
def test_norm_is_the_one_asked_for_and_has_weights(make: Callable[[str], nn.Module], norm: str) -> None:
    # T8: MONAI's plain "instance" is without weights, so a norm kept at a site would keep nothing.
    found = norms_of(make(norm))
    assert found
    for layer in found:
        assert type(layer) is NORMS[norm]
        assert layer.weight is not None
        assert layer.bias is not None
        if norm == "group":  # the residual U-Net's last one works on the 3 output channels
            assert layer.num_groups == (8 if layer.num_channels > 3 else 1)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("norm", NORMS)
def test_logits_lie_on_the_grid_of_the_image(make: Callable[[str], nn.Module], norm: str) -> None:
    network = make(norm)
    with torch.no_grad():
        assert network(torch.randn(2, 4, 8, 16, 24)).shape == (2, 3, 8, 16, 24)


@pytest.mark.parametrize("make", [segresnet, residual_unet])
def test_an_unknown_norm_is_named(make: Callable[..., nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"model\.norm: unknown normalisation 'layer'; choose one of batch"):
        make(norm="layer")


def test_group_norm_refuses_widths_that_8_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"model\.init_filters: 12 must be a multiple of 8"):
        segresnet(init_filters=12, norm="group")
    with pytest.raises(ValueError, match=r"model\.channels: \[4, 8\] must be multiples of 8"):
        residual_unet(channels=(4, 8), norm="group")
    assert norms_of(segresnet(init_filters=12, norm="batch"))


def test_the_head_is_the_last_convolution() -> None:
    assert head_modules(small_segresnet("group"), (8, 8, 8)) == ("conv_final.2.conv",)
    assert head_modules(small_unet("group"), (8, 8, 8)) == ("model.2.1.conv.unit0.conv",)

"""Residual 3D U-Net (Kerfoot et al., STACOM 2018) with a selectable normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai.networks.nets import UNet
from torch import nn

from fedbrats.models.blocks import check_group_widths, norm_layer
from fedbrats.models.prior import set_output_prior


def residual_unet(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (16, 32, 64, 128),
    res_units: int = 2,
    norm: str = "instance",
    dropout: float = 0.0,
    prior: float | None = 0.1,
) -> UNet:
    """Residual U-Net of Kerfoot et al. (STACOM 2018), MONAI's `UNet` with `res_units` units per level.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(levels - 1) and returns logits
    [batch, out_channels, X, Y, Z]. Its last norm works on the output channels; group norm has fewer groups there.

    Raises:
        ValueError: unknown `norm`, or group norm with channels that 8 does not divide.
    """
    if norm == "group":
        check_group_widths(channels)
    network = UNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=tuple(channels),
        strides=(2,) * (len(channels) - 1),
        num_res_units=res_units,
        norm=norm_layer("batch" if norm == "group" else norm),
        dropout=dropout,
    )
    set_output_prior(network, out_channels, prior)
    return _group_normed(network) if norm == "group" else network


def _group_normed(network: UNet) -> UNet:
    """Put group norm in the place of batch norm; MONAI itself can give only one number of groups for all widths."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm3d):
                width = child.num_features
                setattr(module, name, nn.GroupNorm(math.gcd(width, 8), width))
    return network

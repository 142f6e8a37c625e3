"""SegResNet (Myronenko, BrainLes 2018) with a selectable normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import SegResNet

from fedbrats.models.blocks import norm_layer
from fedbrats.models.prior import set_output_prior


def segresnet(
    in_channels: int = 4,
    out_channels: int = 3,
    init_filters: int = 16,
    blocks_down: Sequence[int] = (1, 2, 2, 4),
    blocks_up: Sequence[int] = (1, 1, 1),
    norm: str = "group",
    dropout: float | None = None,
    prior: float | None = 0.1,
) -> SegResNet:
    """MONAI's `SegResNet` without the variational branch.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(blocks_down) - 1) and returns
    logits [batch, out_channels, X, Y, Z], which start near the log-odds of `prior`. Of the paper this is the network
    only; loss, optimiser, augmentation and patch are fedbrats' own.

    Raises:
        ValueError: unknown `norm`, or group norm with `init_filters` that 8 does not divide.
    """
    if norm == "group" and init_filters % 8:
        raise ValueError(f"model.init_filters: {init_filters} must be a multiple of 8 for model.norm=group.")
    network = SegResNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        init_filters=init_filters,
        blocks_down=tuple(blocks_down),
        blocks_up=tuple(blocks_up),
        norm=norm_layer(norm),
        dropout_prob=dropout,
    )
    set_output_prior(network, out_channels, prior)
    return network

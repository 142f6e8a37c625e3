"""EfficientNet in 2D and 3D, which three classifiers of BrainLes 2021 share. The network is MONAI's."""

from __future__ import annotations

from typing import Any

from monai.networks.nets.efficientnet import EfficientNet
from torch import nn

from fedbrats.models.blocks import norm_layer, start_at_half

# Stages of EfficientNet-B0 (Tan and Le, ICML 2019, Table 1): layers, kernel, stride, expansion, channels in and out.
B0 = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
SQUEEZE = 0.25  # of squeeze and excitation
SIDE = 224  # of B0's images, by which MONAI finds its paddings; any even side has the same


def efficientnet(
    spatial_dims: int,
    in_channels: int,
    out_channels: int = 1,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    stages: int = len(B0),
    norm: str = "batch",
    momentum: float = 0.01,
    dropout: float = 0.2,
    drop_connect: float = 0.2,
) -> EfficientNet:
    """MONAI's `EfficientNet`, scaled from B0; the last layer gives logits of the case, near 0 at the start.

    Takes float [batch, in_channels, *S] with sides that halve evenly (multiples of 2^(1 + stages with stride 2)) and
    returns logits [batch, out_channels].

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        out_channels: logits.
        width: factor on the channels of B0, rounded to multiples of 8; 2.0 is B7.
        depth: factor on its layers, rounded up; 3.1 is B7.
        stages: so many of its seven; fewer for small images.
        norm: batch, instance or group.
        momentum: of the statistics of batch norm: the share of a step in them. 0.01 is EfficientNet's, of which they
            need some hundred steps; a network that trains less needs more.
        dropout: before the last layer.
        drop_connect: largest probability that a block is passed over in training, growing with depth.

    Raises:
        ValueError: unknown `norm`, or `stages` out of range.
    """
    if not 1 <= stages <= len(B0):
        raise ValueError(f"model.stages={stages}: must be 1 to {len(B0)}, as many as EfficientNet-B0 has.")
    described = [
        f"r{layers}_k{kernel}_s{stride}{stride}_e{expansion}_i{before}_o{after}_se{SQUEEZE}"
        for layers, kernel, stride, expansion, before, after in B0[:stages]
    ]
    layer: Any = ("batch", {"eps": 1e-3, "momentum": momentum}) if norm == "batch" else norm_layer(norm)
    network = EfficientNet(
        described,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        num_classes=out_channels,
        width_coefficient=width,
        depth_coefficient=depth,
        dropout_rate=dropout,
        image_size=SIDE,
        norm=layer,
        drop_connect_rate=drop_connect,
    )
    network.set_swish(
        memory_efficient=False
    )  # the other one is a function that per-patient gradients cannot follow
    start_at_half(network.get_submodule("_fc"))
    return network


def without_head(network: EfficientNet) -> int:
    """Take the last layer from `network`, which then returns pooled features [batch, width]; the width."""
    last = network.get_submodule("_fc")
    assert isinstance(last, nn.Linear)
    network._fc = nn.Identity()
    return last.in_features

"""EfficientNet in 3D (3D/Multiscale EfficientNet for brain lesions, BrainLes 2021), a classifier of whole cases."""

from __future__ import annotations

import torch
from monai.networks.nets.efficientnet import EfficientNet
from torch import nn

from fedbrats.models.blocks import norm_layer

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


def efficientnet3d(
    in_channels: int = 4,
    out_channels: int = 1,
    width: float = 1.0,
    depth: float = 1.0,
    stages: int = len(B0),
    norm: str = "batch",
    momentum: float = 0.01,
    dropout: float = 0.2,
    drop_connect: float = 0.2,
) -> EfficientNet:
    """MONAI's `EfficientNet` with all convolutions in 3D, B0 as printed; the last layer gives logits of the case.

    Takes float [batch, in_channels, X, Y, Z] with sides that halve evenly (multiples of 2^(1 + stages with stride 2))
    and returns logits [batch, out_channels].

    Args:
        in_channels: modalities.
        out_channels: 1.
        width: factor on the channels of B0, rounded to multiples of 8.
        depth: factor on its layers, rounded up.
        stages: so many of its seven; fewer for small images.
        norm: batch, as printed, instance or group.
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
    network = EfficientNet(
        described,
        spatial_dims=3,
        in_channels=in_channels,
        num_classes=out_channels,
        width_coefficient=width,
        depth_coefficient=depth,
        dropout_rate=dropout,
        image_size=SIDE,
        norm=("batch", {"eps": 1e-3, "momentum": momentum}) if norm == "batch" else norm_layer(norm),
        drop_connect_rate=drop_connect,
    )
    network.set_swish(
        memory_efficient=False
    )  # the other one is a function that per-patient gradients cannot follow
    with torch.no_grad():
        last = network.get_submodule("_fc")
        assert isinstance(last, nn.Linear)
        last.weight.mul_(0.01)  # every case begins near one half, so the first steps have no large loss
        last.bias.zero_()
    return network

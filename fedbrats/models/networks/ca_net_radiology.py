"""Radiology branch of CA-Net (collaborative attention for glioma subtypes, BrainLes 2021): a 3D DenseNet of the lesion.

Section 2.1: a 3D DenseNet of four stages with 4, 8, 12 and 12 layers on the four sequences, cut to the lesion; row
"Radio" of Table 2. The network is MONAI's.

The three attention modules that give CA-Net its name (sections 2.2 to 2.4) fuse it with features of a pathology slide.
The branches are trained apart and frozen before that (section 3.1), so this one stands by itself; BraTS has no slides.

Where the print is silent:

- "The number of feature channel was set to 64" (section 3.1): of the first convolution, as in DenseNet. Growth 32,
  bottlenecks of four times that and transitions that halve the channels are DenseNet's (Huang et al., CVPR 2017).
- 128 voxels in a row become 4, as printed for the fused features (section 2.3): halved five times, as DenseNet does.
- Xavier initialisation (section 3.1): uniform, for all convolutions and the dense layer.

Not as printed: conf/model/ca_net_radiology.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.densenet import DenseNet
from torch import nn

from fedbrats.models.blocks import norm_layer, start_at_half


def ca_net_radiology(
    in_channels: int = 4,
    out_channels: int = 1,
    width: int = 64,
    growth: int = 32,
    layers: Sequence[int] = (4, 8, 12, 12),
    norm: str = "batch",
) -> DenseNet:
    """The 3D DenseNet of CA-Net.

    Takes float [batch, in_channels, X, Y, Z], each side 2^(1 + stages) or more, and returns logits [batch,
    out_channels].

    Args:
        in_channels: modalities.
        out_channels: 1.
        width: channels of the first convolution; 16 or more.
        growth: channels that each layer adds.
        layers: of each stage.
        norm: batch, instance or group.

    Raises:
        ValueError: unknown `norm`, or `width` too small.
    """
    if width < 16 or growth < 1 or not layers or min(layers) < 1:
        raise ValueError(
            f"model.width={width}, growth={growth}, layers={list(layers)}: a width of 16 or more, and one layer or "
            "more of one channel or more in each stage."
        )
    network = DenseNet(3, in_channels, out_channels, width, growth, tuple(layers), norm=norm_layer(norm))
    network.apply(_xavier)
    start_at_half(network.class_layers[-1])
    return network


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)

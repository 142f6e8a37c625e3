"""Multiscale EfficientNet (3D/Multiscale EfficientNet for brain lesions, BrainLes 2021), a classifier of slices.

Section 4.4 and Figure 6. EfficientNet-B7 (Table 3) makes the "high-quality feature" of a T1-weighted slice, a block of
"two Max Pooling layers with two Convolution 2D layers" the "low-quality feature"; both together are classified.

Where the print is silent or contradicts itself:

- Multiscale block: no order, no channels, no activation. A pooling of 2, then a 3x3 convolution and ReLU, twice, of 32
  and 64 channels, averaged over the slice, as EfficientNet's own features are. Pooling first makes the scales coarser.
- Fusion: "concatenates" twice, "when add with the high-quality feature" once; concatenated.
- Input: 256x256x3, a grey slice as a colour image. Its three channels are equal, so one stands for them.
- Which slices of a case, and how their scores become one of the case: nothing. The middle slice, as the other
  classifier of slices of that volume takes it.

Not as printed: conf/model/multiscale_efficientnet.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets.efficientnet import EfficientNet
from torch import Tensor, nn

from fedbrats.models.blocks import start_at_half
from fedbrats.models.efficientnet import efficientnet, without_head


def multiscale_efficientnet(
    in_channels: int = 4, out_channels: int = 1, scales: Sequence[int] = (32, 64), **settings: Any
) -> MultiscaleEfficientNet:
    """EfficientNet beside a multiscale block; B7 by `width=2.0`, `depth=3.1` and `dropout=0.5`.

    Takes float [batch, in_channels, A, B] and returns logits [batch, out_channels].

    Args:
        in_channels: modalities.
        out_channels: 1.
        scales: channels of the convolutions of the multiscale block, each after a pooling.
        settings: `width`, `depth`, `stages`, `norm`, `momentum`, `dropout` and `drop_connect` of
            `fedbrats.models.efficientnet.efficientnet`.

    Raises:
        ValueError: no `scales`, unknown `norm`, or `stages` out of range.
    """
    if not scales or min(scales) < 1:
        raise ValueError(f"model.scales={list(scales)}: name the channels of one convolution or more.")
    return MultiscaleEfficientNet(efficientnet(2, in_channels, **settings), in_channels, out_channels, scales)


class MultiscaleEfficientNet(nn.Module):
    """The network behind `multiscale_efficientnet`."""

    def __init__(
        self, efficient: EfficientNet, in_channels: int, out_channels: int, scales: Sequence[int]
    ) -> None:
        super().__init__()
        width = without_head(efficient)
        self.high = efficient
        layers: list[nn.Module] = []
        for before, after in zip([in_channels, *scales[:-1]], scales, strict=True):
            layers += [nn.MaxPool2d(2), nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.low = nn.Sequential(*layers)
        self.last = nn.Linear(width + scales[-1], out_channels)
        start_at_half(self.last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`."""
        return self.last(torch.cat([self.high(images), self.low(images).mean((2, 3))], dim=1))

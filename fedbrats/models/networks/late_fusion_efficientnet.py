"""Late fusion of an EfficientNet in 3D per sequence (MGMT by multi-modal late fusion, BrainLes 2021), a classifier.

Sections 3.3 and 3.4, Figure 4 ("late fusion v1"): B0 in 3D for each sequence, "concatenating their feature maps before
the classification head". Late fusion v2, with radiomic features of a segmentation, is a plan of the paper.

Where the print is silent: the maps are averaged over space before they are joined, as B0's head does; dropout is that
of each B0; the head is one dense layer. Other features beside the images (DICOM metadata) "did not have meaningful
improvements" and are left out.

Not as printed: conf/model/late_fusion_efficientnet.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedbrats.models.blocks import start_at_half
from fedbrats.models.efficientnet import efficientnet, without_head


def late_fusion_efficientnet(
    in_channels: int = 4, out_channels: int = 1, **settings: Any
) -> LateFusionEfficientNet:
    """One EfficientNet in 3D per channel of the image, and one head on the features of all.

    Takes float [batch, in_channels, X, Y, Z] and returns logits [batch, out_channels].

    Args:
        in_channels: modalities.
        out_channels: 1.
        settings: `width`, `depth`, `stages`, `norm`, `momentum`, `dropout` and `drop_connect` of
            `fedbrats.models.efficientnet.efficientnet`.

    Raises:
        ValueError: unknown `norm`, or `stages` out of range.
    """
    return LateFusionEfficientNet(in_channels, out_channels, settings)


class LateFusionEfficientNet(nn.Module):
    """The network behind `late_fusion_efficientnet`."""

    def __init__(self, in_channels: int, out_channels: int, settings: dict[str, Any]) -> None:
        super().__init__()
        networks = [efficientnet(3, 1, **settings) for _ in range(in_channels)]
        self.last = nn.Linear(sum(without_head(network) for network in networks), out_channels)
        self.branches = nn.ModuleList(networks)
        start_at_half(self.last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`."""
        parts = zip(self.branches, images.split(1, dim=1), strict=True)
        return self.last(torch.cat([branch(part) for branch, part in parts], dim=1))

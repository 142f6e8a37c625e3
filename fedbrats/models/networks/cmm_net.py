"""3D CMM-Net with a deeper encoder and half pyramid pooling (BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d, max_pool3d

from fedbrats.models.blocks import upsampled
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

DILATION = 6  # of the first level; one less at each level below (Table 1)


def cmm_net(
    in_channels: int = 4,
    out_channels: int = 4,
    channels: Sequence[int] = (32, 96, 256),
    bottleneck: Sequence[int] = (1024, 1400, 2048),
    pyramid: Sequence[int] = (2, 4, 8, 16),
    prior: float | None = 0.1,
) -> CMMNet:
    """3D contextual multi-scale multi-level network, sections 2.2 to 2.4, Table 1 and Figures 2 and 3 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^len(channels), 8 by default, and returns
    logits [batch, out_channels, X, Y, Z].

    Every size is that of Table 1. It comes to 362,326,732 parameters, 1.45 GB one way, which the paper does not count.

    Printed and chosen:

    - PPM: features pooled to 2, 4, 8 and 16 voxels a side, a 1x1x1 convolution each to a quarter of the channels,
      upsampled and concatenated with the features themselves, "double compared to the input". The kind of pooling is
      not printed: the average, as in the pyramid pooling of Zhao et al. (CVPR 2017), over whatever sides the features
      have; where they have fewer voxels than the pyramid asks for, voxels repeat. Norm and ReLU of the 1x1x1
      convolutions are not printed and left out.
    - Concatenation: Table 1 joins each level's features once more with the output of its PPM (32 + 64 = 96), which
      holds them already. Built as printed.
    - HPPM: the same without the features. At the printed 16x16x16 of the bottleneck its finest level pools nothing.
    - Convolutions: dilated, ReLU before batch norm, as printed.
    - Upsampling: "3D linear", trilinear.
    - Output: Table 1 has "4 different classes", which section 2.4.1 calls "TC, WT, and ET except for the background".
      Those overlap, so no four classes are made of them. Chosen: the four exclusive classes of the labels by a softmax,
      the Dice loss on all but the background.
    - Initialisation: not printed. PyTorch's, and `prior`.

    Training: conf/model/cmm_net.yaml; see "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per level above the bottleneck, at most five.
        bottleneck: width of each of its double convolutions; an HPPM lies between two of them.
        pyramid: voxels a side of each level of PPM and HPPM.
        prior: probability of tumour that the output starts with.

    Raises:
        ValueError: no level or too many, no bottleneck, a pyramid without levels or that does not divide the widths, or
            a bad `prior`.
    """
    if not 1 <= len(channels) < DILATION:
        raise ValueError(f"model.channels={list(channels)}: name the widths of 1 to {DILATION - 1} levels.")
    if not bottleneck:
        raise ValueError("model.bottleneck=[]: name one width or more.")
    if not pyramid or min(pyramid) < 1:
        raise ValueError(f"model.pyramid={list(pyramid)}: name one side or more, in voxels.")
    if odd := [width for width in (*channels, *bottleneck[:-1]) if width % len(pyramid)]:
        raise ValueError(
            f"model.channels, model.bottleneck: {odd} must be multiples of {len(pyramid)}, the levels of model.pyramid."
        )
    network = CMMNet(in_channels, out_channels, tuple(channels), tuple(bottleneck), tuple(pyramid))
    set_output_prior(network, out_channels, prior)
    return network


class PyramidPooling(nn.Module):
    """Averages over a few, more and many parts of the features; as many channels out as in. This is the HPPM."""

    def __init__(self, width: int, pyramid: tuple[int, ...]) -> None:
        """`pyramid` in voxels a side; each level gives `width / len(pyramid)` channels."""
        super().__init__()
        self.pyramid = pyramid
        self.convolutions = nn.ModuleList(nn.Conv3d(width, width // len(pyramid), 1) for _ in pyramid)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, width, X, Y, Z] to the same shape."""
        sides = features.shape[2:]
        levels = [conv(adaptive_avg_pool3d(features, n)) for n, conv in zip(self.pyramid, self.convolutions)]
        return torch.cat([upsampled(level, sides) for level in levels], dim=1)


class CMMNet(nn.Module):
    """Dilated double convolutions and pyramids down, an HPPM between those of the bottleneck, plain skips up."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...],
        bottleneck: tuple[int, ...],
        pyramid: tuple[int, ...],
    ) -> None:
        """Arguments as in `cmm_net`."""
        super().__init__()
        self.multiple = 2 ** len(channels)
        joined = [3 * width for width in channels]  # features, and the PPM's own and again the features
        dilations = range(DILATION, DILATION - len(channels), -1)
        deepest = DILATION - len(channels)
        self.encoder = nn.ModuleList(
            _block(i, o, dilation) for i, o, dilation in zip([in_channels, *joined], channels, dilations)
        )
        self.pyramids = nn.ModuleList(PyramidPooling(width, pyramid) for width in channels)
        self.bottleneck = nn.Sequential(
            _block(joined[-1], bottleneck[0], deepest),
            *(
                nn.Sequential(PyramidPooling(i, pyramid), _block(i, o, deepest))
                for i, o in pairwise(bottleneck)
            ),
        )
        # Decoder levels from the deepest to the shallowest.
        widths = channels[::-1]
        self.decoder = nn.ModuleList(
            _block(skip + below, width, dilation)
            for skip, below, width, dilation in zip(
                joined[::-1], [bottleneck[-1], *widths], widths, dilations[::-1]
            )
        )
        self.head = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple)
        features, skips = images, []
        for block, pyramid in zip(self.encoder, self.pyramids):
            features = block(features)
            skips.append(torch.cat([features, pyramid(features), features], dim=1))
            features = max_pool3d(skips[-1], 2)
        features = self.bottleneck(features)
        for block, skip in zip(self.decoder, skips[::-1]):
            features = block(torch.cat([skip, upsampled(features, skip.shape[2:])], dim=1))
        return self.head(features)


def _block(before: int, width: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            layer
            for i in (before, width)
            for layer in (
                nn.Conv3d(i, width, 3, padding=dilation, dilation=dilation),
                nn.ReLU(),
                nn.BatchNorm3d(width),
            )
        )
    )

"""DeepSeg in 3D (Zeineldin et al., "Ensemble CNN networks for GBM tumors segmentation", BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from fedbrats.models.blocks import check_widths
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides


def deepseg(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (32, 64, 128, 256, 512),
    dropout: float = 0.5,
    prior: float | None = 0.1,
) -> DeepSeg:
    """The first of the two networks that the paper fuses by STAPLE, section 2.3; model B of Table 1.

    Takes float32 [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 16 by default, and
    returns logits [batch, out_channels, X, Y, Z].

    Printed: five blocks down of two 3x3x3 convolutions, 2x2x2 max-pooling, 2x2x2 "up convolution", BatchNorm, ReLU and
    dropout, a last 1x1x1 convolution. No count of parameters is printed.

    Not printed, taken from the public release of the authors' 2D network (facts, no code): 32 filters, doubled per
    level; BatchNorm between convolution, which has a bias, and ReLU; dropout of one half after the deepest block alone;
    the skip is concatenated before what comes up, and each level up has two convolutions as well. "Up convolution" and
    "deconvolutional layers" are transposed convolutions, to the width of the skip; the release resizes and convolves.

    Contradictions:

    - "A softmax output" (section 2.3, Figure 2), and "region-based training" (same section; model B in section 3.2).
      WT, TC and ET overlap, so they are sigmoids here; `model.out_channels=4` is the softmax of model A.
    - Equation 1 prints Dice itself where its loss is meant, so that a better overlap would cost more. 1 - Dice here.
    - The abstract and section 4 give .9200, .8733 and .8410 to ET, TC and WT, Table 1 to WT, TC and ET. HD95 on the
      test cases is 14.89 for TC and 6.27 for WT in section 4, the other way round in Table 2. The "worst" case of
      Figure 4 has an ET of 0, in section 3.3 a TC of 0.

    Training: conf/model/deepseg.yaml; see "What is not as printed" in models/README.md. How the members are fused: the
    README of fedbrats/inference.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per level.
        dropout: probability that an activation of the deepest block is dropped.
        prior: probability that every output starts with.

    Raises:
        ValueError: fewer than two levels, a `dropout` outside [0, 1) or a bad `prior`.
    """
    check_widths(channels, 2)
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must lie in [0, 1), a probability.")
    network = DeepSeg(in_channels, out_channels, tuple(channels), dropout)
    set_output_prior(network, out_channels, prior)
    return network


def _block(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in (before, width):
        layers += [nn.Conv3d(i, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class DeepSeg(nn.Module):
    """The network behind `deepseg`."""

    def __init__(
        self, in_channels: int, out_channels: int, channels: tuple[int, ...], dropout: float
    ) -> None:
        """Arguments as in `deepseg`."""
        super().__init__()
        skips = channels[:-1]
        self.multiple = 2 ** len(skips)
        self.encoder = nn.ModuleList(_block(i, o) for i, o in zip((in_channels, *skips), channels))
        self.dropout = nn.Dropout(dropout)
        # Levels up, from the deepest to the shallowest.
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deeper, width, 2, stride=2)
            for deeper, width in zip(channels[:0:-1], skips[::-1])
        )
        self.decoder = nn.ModuleList(_block(2 * width, width) for width in skips[::-1])
        self.head = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple)
        features, skips = images, []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else max_pool3d(features, 2))
            skips.append(features)
        features = self.dropout(features)
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1]):
            features = block(torch.cat([skip, up(features)], dim=1))
        return self.head(features)

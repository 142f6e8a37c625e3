"""Residual 3D U-Net with localization (Demoustier et al., BrainLes 2021): the network of both stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool3d, relu

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

GROUPS = 8


def localization_unet(
    in_channels: int = 4,
    out_channels: int = 3,
    filters: int = 64,
    levels: int = 4,
    prior: float | None = 0.1,
) -> LocalizationUNet:
    """Residual U-Net with group norm, sections 2.1 to 2.3 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(levels - 1), 8 by default, and returns
    logits [batch, out_channels, X, Y, Z]. The localiser is this network with 24 filters and one output on
    192x192x160 voxels, the refiner with 64 filters on a crop of 128x128x128 (section 2.3).

    Printed and chosen:

    - Levels: only in a figure. Inputs are padded to multiples of 8 (section 2.1), so three poolings, four levels.
      Widths double per level.
    - Residual: the text joins it by "concatenation" and then calls the activation. Chosen: a sum, the usual form. What
      is added, and the number of convolutions, are not printed; "the first two" and "the last" make three, and the
      first one's output is added, because the block's input has another width.
    - Group norm precedes the first two convolutions, as printed, so not the third. The number of groups is not
      printed: 8, or 1 where 8 does not divide the width, which keeps the contrast between the input's sequences.
    - Output: the authors trained one network per region with one output each, and mention three outputs. Chosen for
      the refiner: three outputs, a third of the traffic and of the privacy budget.
    - Intensities: "as little modification as possible" (section 2.1). Here z-scores, as institutions differ in scale.
    - Crop: "center the input images around the segmented tumors" (section 2.3), on predictions. Here around the true
      tumour's bounding box in training (`train.tumour_centre=box`; the small variant any of its voxels) and around the
      localiser's in the final test, see `inference.locate.box_around`.
    - Initialisation: not printed. PyTorch's, and `prior`. See "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        filters: width of the first level.
        levels: 1 + number of poolings.
        prior: probability that every output channel starts with.

    Raises:
        ValueError: fewer than two levels, or a bad `prior`.
    """
    if levels < 2:
        raise ValueError(f"model.levels={levels}: must be 2 or more.")
    network = LocalizationUNet(in_channels, out_channels, [filters * 2**level for level in range(levels)])
    set_output_prior(network, out_channels, prior)
    return network


class ResidualBlock(nn.Module):
    """Three 3x3x3 convolutions; the first one's output is added to the last one's, then ReLU."""

    def __init__(self, before: int, width: int) -> None:
        """From `before` to `width` channels."""
        super().__init__()
        self.first = _normed_convolution(before, width)
        self.second = _normed_convolution(width, width)
        self.third = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, before, X, Y, Z] to [batch, width, X, Y, Z]."""
        residual = self.first(features)
        return relu(self.third(self.second(residual)) + residual)


class LocalizationUNet(nn.Module):
    """Encoder of pooling and residual block, decoder of transposed convolution, skip and residual block."""

    def __init__(self, in_channels: int, out_channels: int, widths: list[int]) -> None:
        """`widths` per level."""
        super().__init__()
        skips = widths[:-1]
        self.multiple = 2 ** len(skips)
        self.encoder = nn.ModuleList(ResidualBlock(i, o) for i, o in zip([in_channels, *skips], widths))
        # Decoder levels from the deepest to the shallowest.
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deeper, width, 3, stride=2, padding=1, output_padding=1)
            for deeper, width in zip(widths[:0:-1], skips[::-1])
        )
        self.decoder = nn.ModuleList(ResidualBlock(2 * width, width) for width in skips[::-1])
        self.head = nn.Conv3d(skips[0], out_channels, 1)

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
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1]):
            features = block(torch.cat([up(features), skip], dim=1))
        return self.head(features)


def _normed_convolution(before: int, width: int) -> nn.Sequential:
    groups = GROUPS if before % GROUPS == 0 else 1
    return nn.Sequential(
        nn.GroupNorm(groups, before), nn.Conv3d(before, width, 3, padding=1), nn.ReLU(inplace=True)
    )

"""MSFR-Net: a U-Net of blocks that extract features at three scales and weigh them (BrainLes 2021), in 2D.

MSFR-Net (BrainLes 2021), sections 2.1 and 2.2, Figures 1 and 2. No count of parameters and no width is printed.

Where the print is silent or contradicts itself:

- Block: "three 3x3 convolution layers" whose outputs "are concatenated ... because they have different receptive
  fields", so they follow each other (3, 5 and 7 pixels), each with the block's width. CBAM on the concatenation, its
  output added to its input, and a 1x1 convolution to "the required size", here the block's width.
- CBAM is that of Woo et al. (ECCV 2018), which the paper cites: a shared perceptron of one hidden layer, a 16th as
  wide, on mean and maximum over the slice; then a 7x7 convolution on mean and maximum over the channels.
- Levels: "four basic blocks interleaved with four down-sampling layers" down, as many up, four skips. What lies at the
  deepest level is not said. Chosen: a block there too, as in a U-Net.
- Widths: U-Net's, 64 doubled per level. BatchNorm and ReLU after the 3x3 convolutions; up-sampling by transposed
  convolutions of 2. None of it is printed.
- Loss: the weights of the classes and theta are not printed. Chosen: those of COTRNet (BrainLes 2021), which prints the
  same loss.
- Intensities: "into [0, 1] by Z-score" (section 3.3) cannot be both; here a z-score, clipped to three standard
  deviations and scaled to [0, 1].
- "The morphological operations" (section 3.4) are not named, and none is done. HD95 is not "the Hausdorff distance
  multiplied 95%" (section 3.2). A case is called a "CT scan" in section 3.4; it is MRI.

Not as printed: conf/model/msfr_net.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from fedbrats.models.blocks import check_widths, convolutions_2d
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

SCALES = 3  # convolutions of a block, whose outputs are concatenated
SPATIAL = 7  # sides of CBAM's convolution


def msfr_net(
    in_channels: int = 4,
    out_channels: int = 4,
    channels: Sequence[int] = (64, 128, 256, 512, 1024),
    reduction: int = 16,
    prior: float | None = 0.1,
) -> MSFRNet:
    """MSFR-Net; softmax over background, NCR, ED and ET by default.

    Takes float32 [batch, in_channels, A, B] with sides that are multiples of 2^(len(channels) - 1), 16 by default, and
    returns logits [batch, out_channels, A, B].

    Args:
        in_channels: modalities.
        out_channels: see `tasks.segmentation`.
        channels: width per level.
        reduction: of the channels inside CBAM's perceptron.
        prior: probability of tumour that the output starts with, see `set_output_prior`.

    Raises:
        ValueError: fewer than two levels, or a `reduction` that leaves no channel; in the forward pass, sides that it
            cannot take.
    """
    check_widths(channels, 1)
    if not 1 <= reduction <= SCALES * min(channels):
        raise ValueError(
            f"model.reduction={reduction}: must lie between 1 and three times the narrowest of model.channels."
        )
    network = MSFRNet(in_channels, out_channels, tuple(channels), reduction)
    set_output_prior(network, out_channels, prior)
    return network


class CBAM(nn.Module):
    """Convolutional block attention module of Woo et al.: weights for the channels, then for the pixels."""

    def __init__(self, width: int, reduction: int) -> None:
        """`width` channels."""
        super().__init__()
        hidden = width // reduction
        self.channel = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, width, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, SPATIAL, padding=SPATIAL // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, A, B], same shape out."""
        mean, most = (pool((2, 3), keepdim=True) for pool in (features.mean, features.amax))
        weights = self.channel(mean) + self.channel(most)
        features = features * weights.sigmoid()
        seen = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return features * self.spatial(seen).sigmoid()


class MSFER(nn.Module):
    """Multi-scale feature extraction and recalibration, Figure 2."""

    def __init__(self, before: int, width: int, reduction: int) -> None:
        """From `before` to `width` channels."""
        super().__init__()
        self.scales = nn.ModuleList(
            convolutions_2d(before if scale == 0 else width, [width]) for scale in range(SCALES)
        )
        self.recalibration = CBAM(SCALES * width, reduction)
        self.last = nn.Conv2d(SCALES * width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, before, A, B] to [batch, width, A, B]."""
        found = []
        for scale in self.scales:
            features = scale(features)
            found.append(features)
        joined = torch.cat(found, dim=1)
        return self.last(joined + self.recalibration(joined))


class MSFRNet(nn.Module):
    """The network behind `msfr_net`."""

    def __init__(
        self, in_channels: int, out_channels: int, channels: tuple[int, ...], reduction: int
    ) -> None:
        """Arguments as in `msfr_net`."""
        super().__init__()
        skips = channels[:-1]
        self.multiple = 2 ** len(skips)
        self.encoder = nn.ModuleList(
            MSFER(before, width, reduction) for before, width in zip([in_channels, *skips], channels)
        )
        # Decoder levels from the deepest to the shallowest.
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deeper, width, 2, stride=2)
            for deeper, width in zip(channels[:0:-1], skips[::-1])
        )
        self.decoder = nn.ModuleList(MSFER(2 * width, width, reduction) for width in skips[::-1])
        self.head = nn.Conv2d(skips[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple)
        features, skips = images, []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else max_pool2d(features, 2))
            skips.append(features)
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1]):
            features = block(torch.cat([up(features), skip], dim=1))
        return self.head(features)

"""nnU-Net with region-based training (Ma, BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedbrats.models.blocks import check_widths, he_initialise, stage
from fedbrats.models.sides import check_sides


def nnunet(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
    convolutions: int = 2,
) -> NNUNet:
    """3D full-resolution nnU-Net for regions, section 2.5, Figure 1 and Table 2 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 32 by default, and
    returns logits [batch, out_channels, X, Y, Z]; in training a list of one per decoder level, full size first, each
    next one at half the size.

    The defaults have the 31,198,176 parameters that Jabareen and Lukassen (BrainLes 2021, Table 1) print for nnU-Net.
    The paper prints the kinds of layers, not their number; two convolutions per level and a bias in all but the
    transposed convolutions and the heads lead to that count. Contradiction: the text adds deep supervision to "all
    but the two lowest resolutions in the decoder", the count holds only with heads at all five decoder levels. All
    five are built; a weight of 0 in `train.deep_supervision` leaves out what the text leaves out. Because the heads
    have no bias, there is no prior to set. He initialisation as in Table 2.

    Training (conf/model/nnunet.yaml): patches on a randomly chosen class as in Table 2. Gradient clip 12 and weight
    decay 3e-5 are those of nnU-Net's release, as is the mean over mirrorings; the paper has "the default nnUNet". Not
    kept: the ensemble of five folds, and in the small variant none of this. See "What is not as printed" in
    models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per level.
        convolutions: per level of encoder and decoder.

    Raises:
        ValueError: fewer than two levels, or no convolution.
    """
    check_widths(channels, convolutions)
    network = NNUNet(in_channels, out_channels, tuple(channels), convolutions)
    network.apply(he_initialise)
    return network


class NNUNet(nn.Module):
    """Plain convolutions down by stride, transposed convolutions up, a head at every decoder level."""

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int], convolutions: int
    ) -> None:
        """Arguments as in `nnunet`."""
        super().__init__()
        skips = list(channels[:-1])
        inputs = [in_channels, *skips]
        self.multiple = 2 ** len(skips)
        self.encoder = nn.ModuleList(
            stage(before, [width] * convolutions, stride=1 if level == 0 else 2)
            for level, (before, width) in enumerate(zip(inputs, channels))
        )
        # Decoder levels from the deepest to the shallowest.
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deeper, width, kernel_size=2, stride=2, bias=False)
            for deeper, width in zip(channels[:0:-1], skips[::-1])
        )
        self.decoder = nn.ModuleList(stage(2 * width, [width] * convolutions) for width in skips[::-1])
        self.heads = nn.ModuleList(nn.Conv3d(width, out_channels, 1, bias=False) for width in skips[::-1])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; a list of them in training.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, skips = images, []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        logits = []
        for up, level, head, skip in zip(self.up, self.decoder, self.heads, skips[-2::-1]):
            features = level(torch.cat([up(features), skip], dim=1))
            if self.training or level is self.decoder[-1]:
                logits.append(head(features))
        return logits[::-1] if self.training else logits[-1]

"""ResU-Net (Jonsson, 2023) with spatial dropout, for Monte Carlo dropout, in 2D.

Jonsson, "ResU-Net: Image segmentation of brain cancer tumors using a U-Net architecture with residual connections"
(Umea University, 2023), section 3.2, Figure 1, Tables 1 and 2. The order of layers inside a level comes from the
public release; the text has it only in figures.

The paper counts 6,854,609 trainable and 9,824 static parameters (BatchNorm means and variances). This network has
exactly these numbers with `out_channels=1`. Of 196,608 readings of the print that were counted, two give both: this
one, and the same with the two blocks after the last upsampling swapped. What the print leaves open or contradicts,
and what the count decides:

- Fifth encoder width: Table 1 prints 128, Table 2 starts from 256. Only 256 fits.
- Skips are concatenated, as the text says; the output widths of Table 2 (256, 128, 64, 32) are those after the
  concatenation. The residual block that follows has half of them, the width of the skip just joined.
- Convolutions followed by BatchNorm have no bias. The convolution after an upsampling has no BatchNorm and has a bias.
- Layer normalisation is Keras's: over the channels of each pixel, with a weight and a bias per channel.
- The last level (64x64x16) has no skip: upsampling, 1x1 convolution, layer normalisation, dropout, a residual block.
  The output block (64x64x1, internal depth 1) is one more block with identity and a 1x1 convolution with bias.

Figure 1's caption and section 3.2.1 disagree on which side of the figure shows the first block of a level. Here, as
in the release, the first block has a 1x1 shortcut, also where its width does not change, and later ones have identity.
Dropout follows every encoder block (section 3.2.2) and every layer normalisation of the decoder. Where it lies in the
decoder is not printed. Epsilon and momentum of the norms are not printed and are torch's.

Not as printed (conf/model/jonsson_resunet.yaml; "What is not as printed" in models/README.md): slices of 192x192 around
the brain resized to 64x64, where section 3.1.1 zooms and crops 256x256 (the small variant takes 64x64 voxels as they
are, and half of them on tumour); z-score; an output bias set by `prior`; early stopping
counts validations, not epochs, for each arm by itself, and the small variant has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides


def jonsson_resunet(
    in_channels: int = 4,
    out_channels: int = 1,
    widths: Sequence[int] = (16, 32, 64, 128, 256),
    depths: Sequence[int] = (1, 2, 3, 4, 4),
    dropout_encoder: float = 0.1,
    dropout_decoder: float = 0.1,
    prior: float | None = 0.1,
) -> ResUNet:
    """ResU-Net; one sigmoid output, the whole tumour, by default.

    Takes float32 [batch, in_channels, A, B] with sides that are multiples of 32 (two to the number of levels) and
    returns logits [batch, out_channels, A, B].

    Args:
        in_channels: modalities.
        out_channels: see `fedbrats.tasks.segmentation`.
        widths: channels of the encoder levels.
        depths: residual blocks of the encoder levels; each decoder level has one.
        dropout_encoder: probability that a whole channel is dropped, after each encoder block.
        dropout_decoder: the same, in each decoder level.
        prior: probability that the output starts with, see `set_output_prior`.

    Raises:
        ValueError: `widths` and `depths` that do not go together; in the forward pass, sides that it cannot take.
    """
    if len(widths) != len(depths) or min(*widths, *depths) < 1:
        raise ValueError(
            f"model.widths={list(widths)}, model.depths={list(depths)}: as many of one as of the other, each 1 or more."
        )
    network = ResUNet(in_channels, out_channels, widths, depths, dropout_encoder, dropout_decoder)
    set_output_prior(network, out_channels, prior)
    return network


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution that keeps the sides, and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm; the first block of a level has a 1x1 shortcut, later ones identity."""

    def __init__(self, inputs: int, width: int, first: bool) -> None:
        super().__init__()
        self.path = nn.Sequential(*_conv(inputs, width, 3), nn.ReLU(), *_conv(width, width, 3))
        self.shortcut = nn.Sequential(*_conv(inputs, width, 1)) if first else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, inputs, A, B] to [batch, width, A, B]."""
        return torch.relu(self.path(features) + self.shortcut(features))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel, as Keras does it by default."""

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, channels, A, B], same shape out."""
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)


class DecoderLevel(nn.Module):
    """Upsample, convolve, concatenate the skip if there is one, normalise, drop channels, one residual block."""

    def __init__(self, inputs: int, width: int, skip: bool, dropout: float) -> None:
        super().__init__()
        kernel = 3 if skip else 1
        self.conv = nn.Conv2d(inputs, width, kernel, padding=kernel // 2)
        joined = 2 * width if skip else width
        self.norm = ChannelNorm(joined)
        self.dropout = nn.Dropout2d(dropout)
        self.block = ResidualBlock(joined, width, first=True)

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """Features [batch, inputs, A, B] and the skip [batch, width, 2A, 2B] to [batch, width, 2A, 2B]."""
        features = self.conv(interpolate(features, scale_factor=2, mode="bilinear", align_corners=False))
        joined = features if skip is None else torch.cat([features, skip], dim=1)
        return self.block(self.dropout(self.norm(joined)))


class ResUNet(nn.Module):
    """The network behind `jonsson_resunet`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        dropout_encoder: float,
        dropout_decoder: float,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        inputs = in_channels
        for width, depth in zip(widths, depths):
            layers: list[nn.Module] = []
            for number in range(depth):
                block = ResidualBlock(inputs if number == 0 else width, width, first=number == 0)
                layers += [block, nn.Dropout2d(dropout_encoder)]
            self.encoder.append(nn.Sequential(*layers, nn.MaxPool2d(2)))  # the pooled output is the skip
            inputs = width
        self.decoder = nn.ModuleList()  # deepest level first
        for width in reversed(widths[:-1]):
            self.decoder.append(DecoderLevel(inputs, width, skip=True, dropout=dropout_decoder))
            inputs = width
        self.decoder.append(DecoderLevel(inputs, widths[0], skip=False, dropout=dropout_decoder))
        block = ResidualBlock(widths[0], widths[0], first=False)
        self.output = nn.Sequential(block, nn.Conv2d(widths[0], out_channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images float32 [batch, in_channels, A, B], same sides.

        Raises:
            ValueError: sides that the max-pools do not halve exactly.
        """
        check_sides(images, 2 ** len(self.encoder))
        features, skips = images, []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        skips.pop()  # the decoder's input
        for level in self.decoder:
            features = level(features, skips.pop() if skips else None)
        return self.output(features)

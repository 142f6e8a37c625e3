"""3D-ResU-Net of BrainMaGe (Thakur et al., BrainLes 2021), the small reference network."""

from __future__ import annotations

import torch
from monai.networks.blocks import UpSample
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides


def brainmage_resunet(
    in_channels: int = 4,
    out_channels: int = 3,
    filters: int = 16,
    levels: int = 5,
    dropout: float = 0.0,
    prior: float | None = 0.1,
) -> BrainMaGeResUNet:
    """Residual U-Net with 16 initial filters, section 2.3, Table 3 and section 4 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(levels - 1), 16 by default, and returns
    logits [batch, out_channels, X, Y, Z].

    Printed: 16 initial filters, residual connections in encoder and decoder, concatenated skips, 8.288 million
    parameters and 350.7 billion operations for 1 input of 128x128x128 and 2 classes; not the layout. The one here
    takes the kinds of blocks from the public release of BrainMaGe (facts, no code) and was checked with these
    numbers: five levels of doubling width; an input convolution, then strided 3x3x3 convolutions down; pre-activation
    residual blocks of two 3x3x3 convolutions in the encoder; trilinear up-sampling with a 1x1x1 convolution; in the
    decoder one 3x3x3 convolution on the concatenation and such a residual block. Affine instance norm, leaky ReLU.
    With 1 input and 2 outputs it has 8,287,986 parameters, and its convolutions take 349.3 billion operations if the
    1x1x1 convolutions follow the interpolation; here they precede it, with the same result for an eighth of the work.

    Contradictions: the text says up-sampling by transposed convolution; with kernels of 2 that makes 8.593 million.
    The release's convolutions have biases, which makes 8,290,434 and rounds to 8.290. Chosen: none but the last
    convolution's, which rounds to 8.288 as printed. That is not proof: counting the biases but only one of the two
    vectors of each norm makes 8,287,986 as well.
    The release drops out 0.3 of the encoder's channels and keeps running statistics in its norms; the paper mentions
    neither, so `dropout` is 0 and norms have no statistics. The paper is about inference: loss, optimiser, augmentation
    and `prior` are fedbrats' own.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        filters: width of the first level.
        levels: 1 + number of strided convolutions.
        dropout: probability that a channel is dropped inside a block of the encoder.
        prior: probability that every output channel starts with.

    Raises:
        ValueError: fewer than two levels, or a bad `prior`.
    """
    if levels < 2:
        raise ValueError(f"model.levels={levels}: must be 2 or more.")
    widths = [filters * 2**level for level in range(levels)]
    network = BrainMaGeResUNet(in_channels, out_channels, widths, dropout)
    set_output_prior(network, out_channels, prior)
    return network


class NormAct(nn.Module):
    """Affine instance norm, then leaky ReLU."""

    def __init__(self, width: int) -> None:
        """For `width` channels."""
        super().__init__()
        self.norm = nn.InstanceNorm3d(width, affine=True)

    def forward(self, features: Tensor) -> Tensor:
        """Same shape."""
        return leaky_relu(self.norm(features), 0.01)


class ResidualBlock(nn.Module):
    """Norm, activation, convolution, twice; the input is added."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        """From `width` to `width` channels."""
        super().__init__()
        self.inner = nn.Sequential(
            NormAct(width),
            _convolution(width, width),
            nn.Dropout3d(dropout) if dropout else nn.Identity(),
            NormAct(width),
            _convolution(width, width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Same shape."""
        return features + self.inner(features)


class BrainMaGeResUNet(nn.Module):
    """Residual blocks in encoder and decoder, strided convolutions down, trilinear up-sampling."""

    def __init__(self, in_channels: int, out_channels: int, widths: list[int], dropout: float) -> None:
        """`widths` per level."""
        super().__init__()
        skips = widths[:-1]
        self.multiple = 2 ** len(skips)
        entries: list[nn.Module] = [_convolution(in_channels, widths[0])]
        entries += [
            nn.Sequential(_convolution(i, o, stride=2), NormAct(o)) for i, o in zip(skips, widths[1:])
        ]
        self.encoder = nn.ModuleList(
            nn.Sequential(entry, ResidualBlock(width, dropout)) for entry, width in zip(entries, widths)
        )
        # Decoder levels from the deepest to the shallowest. MONAI puts the 1x1x1 convolution before the interpolation.
        self.up = nn.ModuleList(
            UpSample(3, deeper, width, mode="nontrainable", interp_mode="linear", bias=False)
            for deeper, width in zip(widths[:0:-1], skips[::-1])
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(NormAct(2 * width), _convolution(2 * width, width), ResidualBlock(width))
            for width in skips[::-1]
        )
        self.head = nn.Sequential(NormAct(skips[0]), nn.Conv3d(skips[0], out_channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, skips = images, []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        for up, level, skip in zip(self.up, self.decoder, skips[-2::-1]):
            features = level(torch.cat([up(features), skip], dim=1))
        return self.head(features)


def _convolution(before: int, width: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(before, width, 3, stride=stride, padding=1, bias=False)

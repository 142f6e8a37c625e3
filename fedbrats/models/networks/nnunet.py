"""nnU-Net with region-based training (Ma, BrainLes 2021)."""

from __future__ import annotations

import math
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
    strides: Sequence[Sequence[int]] | None = None,
    kernels: Sequence[Sequence[int]] | None = None,
) -> NNUNet:
    """3D full-resolution nnU-Net for regions, section 2.5, Figure 1 and Table 2 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 32 by default, and
    returns logits [batch, out_channels, X, Y, Z]; in training a list of one per decoder level, full size first, each
    next one at half the size. With `strides` a side is a multiple of the product of those along its axis.

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
        strides: of the first convolution of every level along x, y and z, 1 or 2; None: 1 in the first level, else 2.
        kernels: of the convolutions of every level of encoder and decoder along x, y and z, 1 or 3; None: 3. A plan
            (`model.plan`) sets both.

    Raises:
        ValueError: fewer than two levels, no convolution, strides or kernels that are not three for each level.
    """
    check_widths(channels, convolutions)
    levels = len(channels)
    strides = _of_axes("strides", strides or [[1] * 3] + [[2] * 3] * (levels - 1), levels, (1, 2))
    kernels = _of_axes("kernels", kernels or [[3] * 3] * levels, levels, (1, 3))
    network = NNUNet(in_channels, out_channels, tuple(channels), convolutions, strides, kernels)
    network.apply(he_initialise)
    return network


def _of_axes(
    key: str, given: Sequence[Sequence[int]], levels: int, allowed: Sequence[int]
) -> list[tuple[int, ...]]:
    found = [tuple(of) for of in given]
    if len(found) != levels or any(len(of) != 3 or not set(of) <= set(allowed) for of in found):
        raise ValueError(
            f"model.{key}={[list(of) for of in found]}: for each of the {levels} levels of model.channels three "
            f"numbers, {allowed[0]} or {allowed[1]}."
        )
    if key == "strides" and (set(found[0]) != {1} or any(set(of) == {1} for of in found[1:])):
        raise ValueError(
            f"model.strides={[list(of) for of in found]}: the first level halves nothing, every other some axis."
        )
    return found


class NNUNet(nn.Module):
    """Plain convolutions down by stride, transposed convolutions up, a head at every decoder level."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        convolutions: int,
        strides: Sequence[tuple[int, ...]],
        kernels: Sequence[tuple[int, ...]],
    ) -> None:
        """Arguments as in `nnunet`, none of them None."""
        super().__init__()
        skips = list(channels[:-1])
        inputs = [in_channels, *skips]
        self.multiple = tuple(math.prod(of) for of in zip(*strides))
        self.encoder = nn.ModuleList(
            stage(before, [width] * convolutions, stride=stride, kernel=kernel)
            for before, width, stride, kernel in zip(inputs, channels, strides, kernels)
        )
        # Decoder levels from the deepest to the shallowest.
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deeper, width, kernel_size=stride, stride=stride, bias=False)  # type: ignore[arg-type]
            for deeper, width, stride in zip(channels[:0:-1], skips[::-1], strides[:0:-1])
        )
        self.decoder = nn.ModuleList(
            stage(2 * width, [width] * convolutions, kernel=kernel)
            for width, kernel in zip(skips[::-1], kernels[-2::-1])
        )
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

"""C3D whose features of each sequence are fused by a locally connected layer (BrainLes 2021), a classifier.

"MGMT status by video transfer learning", section 2.2, Figures 1 and 2. C3D (Tran et al., ICCV 2015): eight 3x3x3
convolutions of stride 1, max-pooling of 2 in every direction but the first, which leaves the frames alone.

Where the print is silent or contradicts itself:

- Frames: an input of 112x112x48 is said to give 8192 features. C3D takes frames of three colours and 112x112 pixels;
  48 frames of one colour give 24,576 features and 16 frames of three give 512 x 1 x 4 x 4 = 8192. So three neighbouring
  slices are the colours of a frame.
- Pooling: the last one halves 7 pixels to 4, as C3D's release rounds up. So does every one here.
- The bias of Equation 3 has no index, so there is one.
- Transfer: the weights of Sports-1M, kept fixed in print, are from elsewhere. Not kept: all layers are trained, and the
  convolutions start with He's initialisation, without which nothing would reach the dense layers. The sequences share
  one extractor, as there. Those of the locally connected layer have unit variance over the sequences (LeCun's).

Not as printed: conf/model/c3d.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fedbrats.models.blocks import he_initialise, start_at_half
from fedbrats.models.sides import check_exact_sides

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))  # widths of the convolutions, over that of the first
COLOURS = 3  # neighbouring slices that make a frame


def c3d(
    in_channels: int = 4,
    out_channels: int = 1,
    sides: Sequence[int] = (112, 112, 48),
    width: int = 64,
    stages: int = len(STAGES),
    dense: Sequence[int] = (256, 128),
    dropout: float = 0.5,
) -> C3D:
    """C3D on each sequence, and dense layers on what is fused of them.

    Takes float [batch, in_channels, *sides] and returns logits [batch, out_channels].

    Args:
        in_channels: modalities.
        out_channels: 1.
        sides: of the image in voxels, X, Y, Z; Z in threes. The layers after the convolutions depend on them.
        width: channels of the first convolution.
        stages: so many of C3D's five; fewer for small images.
        dense: widths of the dense layers before the last.
        dropout: after the locally connected layer and each dense one.

    Raises:
        ValueError: `stages` out of range, or Z not in threes; in the forward pass, other sides.
    """
    if not 1 <= stages <= len(STAGES):
        raise ValueError(f"model.stages={stages}: must be 1 to {len(STAGES)}, as many as C3D has.")
    if sides[2] % COLOURS:
        raise ValueError(
            f"model.sides={list(sides)}: {COLOURS} slices make a frame; set a multiple in model.input.patch."
        )
    return C3D(
        in_channels, out_channels, sides, [[width * m for m in s] for s in STAGES[:stages]], dense, dropout
    )


class LocallyConnected(nn.Module):
    """Equation 3: a sum over the sequences with weights for each feature."""

    def __init__(self, sequences: int, features: int) -> None:
        super().__init__()
        limit = math.sqrt(3 / sequences)
        self.weight = nn.Parameter(torch.empty(sequences, features).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, sequences, features] to [batch, features]."""
        return (features * self.weight).sum(1) + self.bias


class C3D(nn.Module):
    """The network behind `c3d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sides: Sequence[int],
        stages: Sequence[Sequence[int]],
        dense: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.sides = list(sides)
        left, before = [sides[2] // COLOURS, sides[0], sides[1]], COLOURS
        layers: list[nn.Module] = []
        for index, widths in enumerate(stages):
            for width in widths:
                layers += [nn.Conv3d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            size = (2 if index else 1, 2, 2)
            layers.append(nn.MaxPool3d(size, ceil_mode=True))
            left = [-(-side // by) for side, by in zip(left, size, strict=True)]
        self.extractor = nn.Sequential(*layers)
        self.extractor.apply(he_initialise)
        widths = [before * math.prod(left), *dense]
        head: list[nn.Module] = [LocallyConnected(in_channels, widths[0]), nn.Dropout(dropout), nn.ReLU()]
        for i, o in pairwise(widths):
            head += [nn.Linear(i, o), nn.Dropout(dropout), nn.ReLU()]
        self.fusion, self.last = nn.Sequential(*head), nn.Linear(widths[-1], out_channels)
        start_at_half(self.last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: other sides than the network was made for.
        """
        check_exact_sides(images, self.sides)
        clips = frames(images.flatten(0, 1))
        return self.last(self.fusion(self.extractor(clips).flatten(1).unflatten(0, images.shape[:2])))


def frames(volumes: Tensor) -> Tensor:
    """Volumes [n, X, Y, Z] as clips [n, 3, Z / 3, X, Y]: three neighbouring slices are the colours of a frame."""
    return volumes.unflatten(3, (-1, COLOURS)).permute(0, 4, 3, 1, 2)

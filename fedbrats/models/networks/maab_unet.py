"""U-Net of multiple atrous convolutions attention blocks (BrainLes 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

DILATIONS = (1, 2, 4, 8)  # of the convolutions of a block of level 1, and of those that each level adds
GROUPS = 8
LAST = 4  # times the width of the first block: the block after the pyramid


def maab_unet(
    in_channels: int = 4,
    out_channels: int = 3,
    filters: int = 16,
    dropout: float = 0.2,
    prior: float | None = 0.1,
) -> MAABUNet:
    """Unet3D with multiple atrous convolutions attention blocks, section 2.3, Figures 1 to 3 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 4 and returns logits
    [batch, out_channels, X, Y, Z].

    Printed and chosen. Figure 1 has come down as its words only, Figure 2 not at all:

    - Order (Figure 1): dropout of 0.2 on the input, a block of level 1 with 16 filters, level 2 with 16, pooling, level
      3 with 32, pooling, level 4 with 64 twice; up by a transposed convolution of kernel and stride 2 to 32 and
      level 3 with 32, up to 16 and level 2 with 16. Then the pyramid, level 1 with 64, and a 3x3x3 convolution to the
      output. Dropout takes voxels of the input, as Keras' layer does, not sequences.
    - Block (section 2.3): a convolution, and on its result one per dilation rate, 1, 2, 4 and 8 as far as the level
      goes, "with a pre-activation strategy". Their outputs and the first convolution's are joined by "the feature
      addition function"; then the attention. All kernels are 3, of which nothing is printed. Pre-activation is group
      norm and ReLU; the only norm in print is the GN of Figure 3, and groups are not printed: 8.
    - Attention (Figure 3; its words: CV of G, CV of X, GN, ReLU, CV, Sigmoid): 1x1x1 convolutions of G and X are
      added, then group norm, ReLU, a convolution to one channel, a sigmoid, which multiplies X. On a skip G is the
      deeper feature "before being upsampled"; it is brought to the sides of X trilinearly after its convolution. At the
      end of a block there is no second feature, so X alone decides.
    - Pyramid: the deepest features through 64 filters of kernel 3 and up by four, the middle ones through 32 and up by
      two, concatenated with the topmost. That the convolution comes before the upsampling is chosen, as it costs less.
      Keras' upsampling repeats voxels, so here too.
    - Initialisation: not printed. PyTorch's, and `prior`.

    Training: conf/model/maab_unet.yaml; see "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        filters: of the first block.
        dropout: probability that a voxel of an input sequence is set to 0 in training.
        prior: probability that every output channel starts with.

    Raises:
        ValueError: `filters` is no multiple of 8, or a bad `dropout` or `prior`.
    """
    if filters < GROUPS or filters % GROUPS:
        raise ValueError(f"model.filters={filters}: must be a multiple of {GROUPS}, the groups of its norm.")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must lie in [0, 1).")
    network = MAABUNet(in_channels, out_channels, filters, dropout)
    set_output_prior(network, out_channels, prior)
    return network


class Attention(nn.Module):
    """Which voxels of X are worth looking at, as X and, where there is one, G say."""

    def __init__(self, width: int, gate: int = 0) -> None:
        """`width` channels of X and `gate` of G, 0 where there is none."""
        super().__init__()
        self.of_x = nn.Conv3d(width, width, 1)
        self.of_gate = nn.Conv3d(gate, width, 1) if gate else None
        self.weigh = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv3d(width, 1, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor, gate: Tensor | None = None) -> Tensor:
        """X [batch, width, X, Y, Z] times its attention; G has any sides."""
        seen = self.of_x(features)
        if self.of_gate is not None and gate is not None:
            seen = seen + interpolate(
                self.of_gate(gate), size=features.shape[2:], mode="trilinear", align_corners=False
            )
        return self.weigh(seen) * features


class MAAB(nn.Module):
    """Convolutions of growing dilation on the result of a first one, added to it, and attention."""

    def __init__(self, before: int, width: int, level: int) -> None:
        """From `before` to `width` channels, with `level` dilation rates."""
        super().__init__()
        self.first = nn.Conv3d(before, width, 3, padding=1)
        self.atrous = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(GROUPS, width),
                nn.ReLU(),
                nn.Conv3d(width, width, 3, padding=rate, dilation=rate),
            )
            for rate in DILATIONS[:level]
        )
        self.attention = Attention(width)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, before, X, Y, Z] to [batch, width, X, Y, Z]."""
        first = self.first(features)
        return self.attention(sum((branch(first) for branch in self.atrous), start=first))


class MAABUNet(nn.Module):
    """Two poolings down, attended skips up, and a pyramid of all three levels before the last block."""

    multiple = 4

    def __init__(self, in_channels: int, out_channels: int, filters: int, dropout: float) -> None:
        """Arguments as in `maab_unet`."""
        super().__init__()
        top, middle, deep = filters, 2 * filters, 4 * filters
        self.dropout = nn.Dropout(dropout)
        self.top = nn.Sequential(MAAB(in_channels, top, 1), MAAB(top, top, 2))
        self.middle = MAAB(top, middle, 3)
        self.deep = nn.Sequential(MAAB(middle, deep, 4), MAAB(deep, deep, 4))
        self.up_middle = nn.ConvTranspose3d(deep, middle, 2, stride=2)
        self.skip_middle = Attention(middle, deep)
        self.back_middle = MAAB(2 * middle, middle, 3)
        self.up_top = nn.ConvTranspose3d(middle, top, 2, stride=2)
        self.skip_top = Attention(top, middle)
        self.back_top = MAAB(2 * top, top, 2)
        self.from_deep = nn.Conv3d(deep, deep, 3, padding=1)
        self.from_middle = nn.Conv3d(middle, middle, 3, padding=1)
        self.last = MAAB(top + middle + deep, LAST * filters, 1)
        self.head = nn.Conv3d(LAST * filters, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve twice.
        """
        check_sides(images, self.multiple)
        top = self.top(self.dropout(images))
        middle = self.middle(max_pool3d(top, 2))
        deep = self.deep(max_pool3d(middle, 2))
        middle = self.back_middle(torch.cat([self.skip_middle(middle, deep), self.up_middle(deep)], dim=1))
        top = self.back_top(torch.cat([self.skip_top(top, middle), self.up_top(middle)], dim=1))
        pyramid = [top, _repeated(self.from_middle(middle), 2), _repeated(self.from_deep(deep), 4)]
        return self.head(self.last(torch.cat(pyramid, dim=1)))


def _repeated(features: Tensor, factor: int) -> Tensor:
    return interpolate(features, scale_factor=factor, mode="nearest")

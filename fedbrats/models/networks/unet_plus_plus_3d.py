"""UNet++ in 3D, of the ensemble of nnU-Net, UNet++, CoTr and HRNet (BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedbrats.models.blocks import check_widths, he_initialise, stage
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides


def unet_plus_plus_3d(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (32, 64, 128, 256),
    convolutions: int = 2,
    prior: float | None = 0.1,
) -> UNetPlusPlus3D:
    """U-Nets of every depth inside one another, "three-stage" (section 2.1, footnote d of Table 4).

    Takes float32 [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 8 by default, and
    returns logits [batch, out_channels, X, Y, Z].

    Printed: the patch of 96, instance norm, "three stage", nothing else of the network. Zhou et al. (DLMIA 2018), whom
    the paper cites, give the nodes: X(i, j) joins all X(i, 0) to X(i, j - 1) and X(i + 1, j - 1) from below, and two
    3x3 convolutions follow.

    Chosen: three stages are three halvings, so four levels and the longest way X(0, 3), which is the L3 of Zhou et al.;
    their 32 channels, doubled per level, and their transposed convolutions of 2, to the width of the level; instance
    norm and leaky ReLU after each convolution as in nnU-Net, which the paper starts from; one output, at X(0, 3), as no
    deep supervision is printed. MONAI's `BasicUNetPlusPlus` is not used: it has five levels, whatever is asked for, and
    other widths on the way up. In 2D and with five levels the same nodes have the 9.04 million parameters that Zhou et
    al. print, without norm; a test counts them.

    Not kept: "Dice and HD95 loss". HD95 has no gradient, so the loss of Karimi and Salcudean (IEEE TMI 2020) by
    distance transforms stands for it (`loss=dice_hausdorff`).

    Training: conf/model/unet_plus_plus_3d.yaml; see "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per level.
        convolutions: per node.
        prior: probability that every output starts with.

    Raises:
        ValueError: fewer than two levels, no convolution, or a bad `prior`.
    """
    check_widths(channels, convolutions)
    network = UNetPlusPlus3D(in_channels, out_channels, tuple(channels), convolutions)
    network.apply(he_initialise)
    set_output_prior(network, out_channels, prior)
    return network


class UNetPlusPlus3D(nn.Module):
    """The network behind `unet_plus_plus_3d`; node "i_j" is at level i and joins j nodes of its own level."""

    def __init__(
        self, in_channels: int, out_channels: int, channels: tuple[int, ...], convolutions: int
    ) -> None:
        """Arguments as in `unet_plus_plus_3d`."""
        super().__init__()
        self.levels = len(channels)
        self.nodes, self.up = nn.ModuleDict(), nn.ModuleDict()
        for level, (before, width) in enumerate(zip((in_channels, *channels), channels)):
            stride = 1 if level == 0 else 2
            self.nodes[f"{level}_0"] = nn.Sequential(
                *([nn.MaxPool3d(2)] if stride == 2 else []), stage(before, [width] * convolutions)
            )
        for joined in range(1, self.levels):
            for level in range(self.levels - joined):
                deeper, width = channels[level + 1], channels[level]
                self.up[f"{level}_{joined}"] = nn.ConvTranspose3d(deeper, width, 2, stride=2)
                self.nodes[f"{level}_{joined}"] = stage((joined + 1) * width, [width] * convolutions)
        self.head = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, 2 ** (self.levels - 1), instance_norm=True)
        rows: list[list[Tensor]] = []  # by level, the nodes so far
        features = images
        for level in range(self.levels):
            features = self.nodes[f"{level}_0"](features)
            rows.append([features])
        for joined in range(1, self.levels):
            for level in range(self.levels - joined):
                name = f"{level}_{joined}"
                below = self.up[name](rows[level + 1][joined - 1])
                rows[level].append(self.nodes[name](torch.cat([*rows[level], below], dim=1)))
        return self.head(rows[0][-1])

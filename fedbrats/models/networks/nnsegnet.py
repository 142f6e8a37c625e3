"""nnSegNet (Jabareen and Lukassen, BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedbrats.models.blocks import check_widths, he_initialise, stage
from fedbrats.models.sides import check_sides


def nnsegnet(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
    convolutions: int = 2,
) -> NNSegNet:
    """nnU-Net whose pooling keeps its indices and whose decoder unpools with them, section 2.3, Table 1, Figure 2.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 32 by default, and
    returns logits [batch, out_channels, X, Y, Z]; in training a list of one per decoder level, full size first, each
    next one at half the size.

    The defaults have the 27,663,648 parameters of Table 1. Unpooling wants as many channels as the pooling had, and
    the paper does not say who provides them. Chosen, because it gives the count: the last convolution of the deepest
    level and of every decoder level has the width of the next shallower level (the last decoder level keeps its own),
    and the heads read that width. The rest is as in `nnunet`. The paper's smaller network ("one" convolution instead
    of two, section 4.2) is printed with 17.4 million parameters; `convolutions=1` has 12.9 million in this layout.
    Contradiction: section 2.5 thresholds softmax values of WT, NCR and ET one after the other, section 2.4 trains
    with binary cross-entropy, and the count holds with three output channels; so three sigmoid regions are chosen.

    Training (conf/model/nnsegnet.yaml): weight decay 3e-5 is printed (section 2.4). Patches on a randomly chosen class,
    gradient clip 12 and the mean over mirrorings are nnU-Net's, whose framework "automatically determined" them; the
    small variant goes without these three. See "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per level.
        convolutions: per level of encoder and decoder.

    Raises:
        ValueError: fewer than two levels, or no convolution.
    """
    check_widths(channels, convolutions)
    network = NNSegNet(in_channels, out_channels, tuple(channels), convolutions)
    network.apply(he_initialise)
    return network


class NNSegNet(nn.Module):
    """Max pooling down, unpooling with the stored indices up, a head at every decoder level."""

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int], convolutions: int
    ) -> None:
        """Arguments as in `nnsegnet`."""
        super().__init__()
        skips = list(channels[:-1])
        last = [skips[0], *skips[:-1]]  # width that decoder level l hands on
        plain = convolutions - 1
        self.multiple = 2 ** len(skips)
        self.encoder = nn.ModuleList(
            stage(before, [width] * convolutions) for before, width in zip([in_channels, *skips[:-1]], skips)
        )
        self.pool = nn.MaxPool3d(2, return_indices=True)
        self.deepest = stage(skips[-1], [channels[-1]] * plain + [skips[-1]])
        self.unpool = nn.MaxUnpool3d(2)
        # Decoder levels from the deepest to the shallowest.
        self.decoder = nn.ModuleList(
            stage(2 * width, [width] * plain + [out]) for width, out in zip(skips[::-1], last[::-1])
        )
        self.heads = nn.ModuleList(nn.Conv3d(width, out_channels, 1, bias=False) for width in last[::-1])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; a list of them in training.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, kept = images, []
        for level in self.encoder:
            skip = level(features)
            features, indices = self.pool(skip)
            kept.append((skip, indices))
        features = self.deepest(features)
        logits = []
        for level, head, (skip, indices) in zip(self.decoder, self.heads, kept[::-1]):
            features = level(torch.cat([self.unpool(features, indices), skip], dim=1))
            if self.training or level is self.decoder[-1]:
                logits.append(head(features))
        return logits[::-1] if self.training else logits[-1]

"""Hierarchical and global modality interaction (BrainLes 2021): nnU-Net whose features are kept apart by sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from fedbrats.models.blocks import he_initialise, stage
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

SEQUENCES = 4  # T1, T1c, T2 and FLAIR, each a quarter of the channels
FORWARD = 4  # times the width, inside a transformer layer


def modality_interaction(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (32, 64, 128, 256, 320),
    layers: int = 6,
    heads: int = 8,
    grid: Sequence[int] = (12, 10, 7),
    prior: float | None = 0.1,
) -> ModalityInteraction:
    """Co-attention between pairs of sequences at every level, a transformer over all of them at the deepest one.

    Takes float [batch, 4, X, Y, Z] in the order T1, T1c, T2, FLAIR (that of the project) with every side a multiple of
    2^(len(channels) - 1), 16 by default, and returns logits [batch, out_channels, X, Y, Z].

    Printed and chosen:

    - Levels: five blocks with stride 2 (section 2.4) would leave 1/32, the transformer has 1/16 (section 2.3), and the
      decoder has four levels (section 2.5). Chosen: the first block keeps the sides. The last one has 320 channels
      (section 2.3), the others, as in nnU-Net, 32 doubled per level; its instance norm and leaky ReLU.
    - Co-attention: at every level, on the way to the decoder and, from the last, to the transformer; the next block
      takes the features as they were. Equations 1 to 3, with bias in all layers; average pooling over the whole patch.
      Who tells whom is section 2.2's: T1 and T2 each other, then the new T2 FLAIR and the new T1 T1c. A quarter of the
      channels "presents" a sequence, though the first convolution has mixed all four.
    - Transformer: Equation 4 with a width of 80 (C/4). Equation 5 has its sums inside, MHA(LN(z) + z), and nothing goes
      round attention; "a standard architecture" (section 2.3) has z + MHA(LN(z)). Chosen: the standard one, torch's. 8
      heads and four times the width inside are not printed. Its dropout is not either, and left out.
    - Positions are learnt for the 12x10x7 voxels that 192x160x112 leaves (`grid`), and resized (trilinear) where
      the patch leaves others. The printed crop, 192x160x108 (section 2.6), is no multiple of 16; 112 is the next.
    - Decoder: "deconvolutional" layers of stride 2 and of stride 1, both 3x3x3. Each level joins what is below, the
      co-attention of its own level and the transformer's features, resized; the deepest one has these already.
    - Loss: cross-entropy alone; binary for each region here.
    - ET: "connected component-based post-processing" has no size (`postprocess=et_components`, 0.05 mL here).

    Contradictions: Dice of 0.8518, 0.8808 and 0.926 is said of ET, TC and WT in the abstract and Table 1, of ET, WT and
    TC in section 3. See "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences, four.
        out_channels: see `tasks.segmentation`.
        channels: width per level, each a multiple of 8.
        layers: of the transformer.
        heads: of its attention; a divisor of a quarter of the last width.
        grid: voxels of the deepest level that positions are learnt for.
        prior: probability that every output starts with.

    Raises:
        ValueError: another number of sequences, or settings that make no network.
    """
    if in_channels != SEQUENCES:
        raise ValueError(
            f"model.in_channels={in_channels}: the network pairs four sequences, no other number."
        )
    if len(channels) < 2 or any(width < 1 or width % 8 for width in channels):
        raise ValueError(f"model.channels={list(channels)}: two or more widths, each a multiple of 8.")
    if heads < 1 or channels[-1] // SEQUENCES % heads:
        raise ValueError(
            f"model.heads={heads}: must divide {channels[-1] // SEQUENCES}, a quarter of the last width."
        )
    if layers < 1 or len(grid) != 3 or min(grid) < 1:
        raise ValueError(
            f"model.layers={layers}, model.grid={list(grid)}: a layer or more, three sides of 1 or more."
        )
    network = ModalityInteraction(out_channels, tuple(channels), layers, heads, tuple(grid))
    network.apply(he_initialise)
    set_output_prior(network, out_channels, prior)
    return network


class CoAttention(nn.Module):
    """SCCA of Equations 1 to 3: one sequence's features, weighted by channel and by voxel as another's tell."""

    def __init__(self, width: int) -> None:
        """`width` channels of each."""
        super().__init__()
        self.channel = nn.Sequential(
            nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width), nn.Sigmoid()
        )
        self.spatial = nn.Sequential(nn.Conv3d(width, 1, 1), nn.Sigmoid())
        self.last = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, features: Tensor, other: Tensor) -> Tensor:
        """`features` and `other` [batch, width, X, Y, Z], same shape out."""
        channel = self.channel(other.mean((2, 3, 4)))[:, :, None, None, None]
        return relu(self.last(channel * features + self.spatial(other) * features))


class Hierarchy(nn.Module):
    """The four co-attentions of section 2.2, in their order."""

    def __init__(self, width: int) -> None:
        """`width` channels of all four sequences together."""
        super().__init__()
        part = width // SEQUENCES
        self.t1, self.t2 = CoAttention(part), CoAttention(part)
        self.flair, self.t1c = CoAttention(part), CoAttention(part)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, X, Y, Z], T1, T1c, T2 and FLAIR a quarter each, same shape out."""
        t1, t1c, t2, flair = features.chunk(SEQUENCES, dim=1)
        new_t1, new_t2 = self.t1(t1, t2), self.t2(t2, t1)
        return torch.cat([new_t1, self.t1c(t1c, new_t1), new_t2, self.flair(flair, new_t2)], dim=1)


class Global(nn.Module):
    """Transformer over the voxels of all four sequences, section 2.3."""

    def __init__(self, width: int, layers: int, heads: int, grid: tuple[int, ...]) -> None:
        """`width` channels of all four sequences together."""
        super().__init__()
        part = width // SEQUENCES
        self.project = nn.Linear(part, part)
        self.positions = nn.Parameter(0.02 * torch.randn(SEQUENCES, part, *grid))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(part, heads, FORWARD * part, 0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, width, X, Y, Z], same shape out."""
        sides = features.shape[2:]
        tokens = self.project(_tokens(features.unflatten(1, (SEQUENCES, -1))))
        positions: Tensor = self.positions
        if positions.shape[2:] != sides:
            positions = interpolate(positions, sides, mode="trilinear", align_corners=False)
        tokens = tokens + _tokens(positions.unsqueeze(0))
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens.unflatten(1, (SEQUENCES, -1)).transpose(2, 3).reshape(features.shape)


def _tokens(features: Tensor) -> Tensor:
    """[batch, sequences, part, X, Y, Z] to [batch, sequences * voxels, part], one sequence after the other."""
    return features.flatten(3).transpose(2, 3).flatten(1, 2)


class DecoderLevel(nn.Module):
    """Up by two, join the level's co-attention and the transformer's features, a layer of stride 1."""

    def __init__(self, deeper: int, width: int, deepest: int) -> None:
        """From `deeper` to `width` channels; `deepest` of the transformer, 0 where its features are those below."""
        super().__init__()
        self.up = nn.ConvTranspose3d(deeper, width, 3, stride=2, padding=1, output_padding=1)
        self.recover = stage(2 * width + deepest, [width])
        self.deepest = deepest

    def forward(self, features: Tensor, skip: Tensor, context: Tensor) -> Tensor:
        """Features of the level below, skip [batch, width, X, Y, Z] and the transformer's, to the shape of the skip."""
        joined = [self.up(features), skip]
        if self.deepest:
            joined.append(interpolate(context, skip.shape[2:], mode="trilinear", align_corners=False))
        return self.recover(torch.cat(joined, dim=1))


class ModalityInteraction(nn.Module):
    """The network behind `modality_interaction`."""

    def __init__(
        self, out_channels: int, channels: tuple[int, ...], layers: int, heads: int, grid: tuple[int, ...]
    ) -> None:
        """Arguments as in `modality_interaction`."""
        super().__init__()
        skips = channels[:-1]
        self.multiple = 2 ** len(skips)
        self.encoder = nn.ModuleList(
            stage(before, [width, width], stride=1 if level == 0 else 2)
            for level, (before, width) in enumerate(zip([SEQUENCES, *skips], channels))
        )
        self.interaction = nn.ModuleList(Hierarchy(width) for width in channels)
        self.context = Global(channels[-1], layers, heads, grid)
        # Decoder levels from the deepest to the shallowest.
        self.decoder = nn.ModuleList(
            DecoderLevel(deeper, width, 0 if index == 0 else channels[-1])
            for index, (deeper, width) in enumerate(zip(channels[:0:-1], skips[::-1]))
        )
        self.head = nn.Conv3d(skips[0], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, skips = images, []
        for level, interaction in zip(self.encoder, self.interaction):
            features = level(features)
            skips.append(interaction(features))
        features = context = self.context(skips.pop())
        for level, skip in zip(self.decoder, skips[::-1]):
            features = level(features, skip, context)
        return self.head(features)

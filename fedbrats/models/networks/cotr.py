"""CoTr, of the ensemble of nnU-Net, UNet++, CoTr and HRNet (BrainLes 2021): a U-Net around a deformable transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, leaky_relu

from fedbrats.models.blocks import SLOPE, upsampled
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

MULTIPLE = 16  # the deepest stage has one voxel where the patch has 16
POINTS = 4  # that a voxel looks at, per head and level
FORWARD = 4  # times the width, inside a transformer layer
PERIOD = 10_000  # of the slowest waves of the positions


def cotr(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (64, 192, 384, 384),
    blocks: Sequence[int] = (3, 3, 2),
    layers: int = 6,
    heads: int = 6,
    dropout: float = 0.1,
    prior: float | None = 0.1,
) -> CoTr:
    """A residual encoder whose two deepest feature maps pass a deformable transformer on their way to the decoder.

    Takes float32 [batch, in_channels, X, Y, Z] with sides that are multiples of 16 and returns logits [batch,
    out_channels, X, Y, Z]; in training a list of four, full size first, each next one at half the size.

    Printed: a patch of 128 and "the three-stage-algorithm, each stage consists of one transformer and one convolutional
    layer" (section 2.1). The network is that of Xie et al. (MICCAI 2021), whom the paper cites, so: a 7x7x7 convolution
    with instance norm and leaky ReLU, three stages of 3, 3 and 2 residual blocks; six transformer layers over the last
    two maps, each voxel looking at four places on each of them; transposed convolutions, sums with the encoder's maps
    and a residual block on the way up. That is no transformer per stage, as printed, but the public release (facts, no
    code), which with one channel and twelve classes has the 41.9 million parameters of its paper; a test counts them.

    Chosen:

    - The first convolution has a stride of 2 along every axis. The release has (1, 2, 2), for slices of 3 mm; the
      voxels of BraTS are cubes.
    - A voxel's places start around the voxel itself. In the release the axes of the places are in another order (depth,
      width, height) than torch's `grid_sample` reads them, so a voxel looks around another one; that is not kept.
    - Positions: the waves of Equation 2 of Xie et al., over a third of the channels per axis, on an axis that runs from
      0 to 2 pi as in the release.
    - Outputs for deep supervision at 1/2, 1/4 and 1/8 and the initialisation, as in the release; `prior`.

    Training: conf/model/cotr.yaml; see "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: of the first convolution and the three stages; the last two are equal, a multiple of 6 and of `heads`.
        blocks: residual blocks per stage.
        layers: of the transformer.
        heads: of its attention.
        dropout: inside the transformer layers.
        prior: probability that every output starts with.

    Raises:
        ValueError: settings that make no network, or a bad `prior`.
    """
    # With fewer than 16 channels the backward pass of strided 1x1 convolutions writes past its memory on CPUs with
    # channels last (oneDNN issue 6035, torch 2.13).
    if len(channels) != 4 or min(channels) < 16 or channels[2] != channels[3]:
        raise ValueError(f"model.channels={list(channels)}: four widths of 16 or more, the last two equal.")
    if heads < 1 or channels[3] % heads or channels[3] % 6:
        raise ValueError(
            f"model.channels={list(channels)}: the last must be a multiple of 6 and of {heads} heads."
        )
    if len(blocks) != 3 or min(blocks) < 1 or layers < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f"model.blocks={list(blocks)}, model.layers={layers}, model.dropout={dropout}: three numbers of 1 or more, "
            "1 or more layers, a probability in [0, 1)."
        )
    network = CoTr(in_channels, out_channels, tuple(channels), tuple(blocks), layers, heads, dropout)
    network.apply(_initialise)
    for head in network.heads:
        set_output_prior(head, out_channels, prior)
    return network


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")


def _normed(before: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv3d(before, width, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.InstanceNorm3d(width, affine=True))


class Down(nn.Module):
    """Residual block of the encoder: one 3x3x3 convolution, and a way round it."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        """From `before` to `width` channels."""
        super().__init__()
        self.body = _normed(before, width, 3, stride)
        plain = stride == 1 and before == width
        self.way = nn.Identity() if plain else _normed(before, width, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, before, X, Y, Z] to [batch, width, X, Y, Z], each side over the stride."""
        return leaky_relu(self.body(features) + self.way(features), SLOPE)


class Up(nn.Module):
    """Up by two, plus the skip, then two 3x3x3 convolutions with a way round them."""

    def __init__(self, deeper: int, width: int) -> None:
        """From `deeper` to `width` channels."""
        super().__init__()
        self.up = nn.ConvTranspose3d(deeper, width, 2, stride=2, bias=False)
        self.body = nn.Sequential(
            *(layer for _ in range(2) for layer in (_normed(width, width, 3), nn.LeakyReLU(SLOPE)))
        )

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """[batch, deeper, X, Y, Z] and the skip, to the shape of the skip."""
        joined = self.up(features) + skip
        return self.body(joined) + joined


class DeformableAttention(nn.Module):
    """Each voxel of each map looks at `POINTS` places per head and map, which it chooses itself (Xie et al., Eq. 3)."""

    def __init__(self, width: int, maps: int, heads: int) -> None:
        """`width` channels of each of `maps` maps."""
        super().__init__()
        self.shape = (heads, maps, POINTS)
        self.offsets = nn.Linear(width, math.prod(self.shape) * 3)
        self.weights = nn.Linear(width, math.prod(self.shape))
        self.values, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self._start()

    def _start(self) -> None:
        """As in the release: each head looks along a direction of its own, all places count the same."""
        heads, maps, points = self.shape
        angle = torch.arange(heads) * (2 * math.pi / heads)
        way = torch.stack([angle.cos(), angle.sin() * angle.cos(), angle.sin() * angle.sin()], -1)
        way = way / way.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, points + 1).reshape(1, 1, points, 1)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.offsets.bias.copy_((way[:, None, None] * steps).expand(heads, maps, points, 3).flatten())
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Tensor, tokens: Tensor, sides: Sequence[Sequence[int]], places: Tensor
    ) -> Tensor:
        """What every voxel gathers, [batch, voxels, width].

        Args:
            queries: [batch, voxels, width], the voxels of all maps one after the other.
            tokens: same shape, what is looked at.
            sides: of each map, in voxels.
            places: [voxels, 3], where each voxel lies, each axis from 0 to 1.
        """
        heads, maps, points = self.shape
        batch, voxels, width = tokens.shape
        offsets = self.offsets(queries).reshape(batch, voxels, heads, maps, points, 3)
        weights = self.weights(queries).reshape(batch, voxels, heads, maps * points).softmax(-1)
        values = self.values(tokens).reshape(batch, voxels, heads, width // heads)
        found = []
        for index, part in enumerate(values.split([math.prod(side) for side in sides], dim=1)):
            volume = part.permute(0, 2, 3, 1).reshape(batch * heads, width // heads, *sides[index])
            at = places[:, None, None] + offsets[:, :, :, index] / offsets.new_tensor(list(sides[index]))
            # grid_sample counts from -1 to 1, the last axis first.
            grid = (2 * at - 1).flip(-1).transpose(1, 2).reshape(batch * heads, voxels, points, 1, 3)
            found.append(grid_sample(volume, grid.to(volume.dtype), align_corners=False).squeeze(-1))
        seen = torch.cat(found, dim=-1) * weights.transpose(1, 2).reshape(batch * heads, 1, voxels, -1)
        return self.output(seen.sum(-1).reshape(batch, width, voxels).transpose(1, 2))


class Layer(nn.Module):
    """Deformable attention and two linear layers, a norm after each sum."""

    def __init__(self, width: int, maps: int, heads: int, dropout: float) -> None:
        """Arguments as in `DeformableAttention`."""
        super().__init__()
        self.attention = DeformableAttention(width, maps, heads)
        self.norm1, self.norm2, self.dropout = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(dropout)
        inside = FORWARD * width
        self.forth = nn.Sequential(
            nn.Linear(width, inside),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inside, width),
            nn.Dropout(dropout),
        )

    def forward(
        self, tokens: Tensor, positions: Tensor, sides: Sequence[Sequence[int]], places: Tensor
    ) -> Tensor:
        """`tokens` [batch, voxels, width] and what tells their positions apart, same shape out."""
        seen = self.attention(tokens + positions, tokens, sides, places)
        tokens = self.norm1(tokens + self.dropout(seen))
        return self.norm2(tokens + self.forth(tokens))


def places_of(sides: Sequence[int], device: torch.device) -> Tensor:
    """Middles of the voxels of a map, float32 [voxels, 3], each axis from 0 to 1."""
    axes = [(torch.arange(side, device=device) + 0.5) / side for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of the places [voxels, 3], a third of `width` per axis: [voxels, width]."""
    third = width // 3
    rates = PERIOD ** -(torch.arange(0, third, 2, device=places.device) / third)
    angles = 2 * math.pi * places[..., None] * rates  # [voxels, 3, third / 2]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class CoTr(nn.Module):
    """The network behind `cotr`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        """Arguments as in `cotr`."""
        super().__init__()
        self.stem = nn.Sequential(_normed(in_channels, channels[0], 7, stride=2), nn.LeakyReLU(SLOPE))
        self.stages = nn.ModuleList(
            nn.Sequential(Down(before, width, 2), *(Down(width, width, 1) for _ in range(count - 1)))
            for before, width, count in zip(channels, channels[1:], blocks)
        )
        width = channels[-1]
        self.levels = nn.Parameter(torch.randn(2, width))  # tells the two maps apart
        self.layers = nn.ModuleList(Layer(width, 2, heads, dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(Up(deeper, w) for deeper, w in zip(channels[:0:-1], channels[-2::-1]))
        # From the deepest to full size.
        self.heads = nn.ModuleList(nn.Conv3d(w, out_channels, 1) for w in (*channels[-2::-1], channels[0]))

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; a list of them in training.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, MULTIPLE, instance_norm=True)
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        features, skips = self._transformed(maps)
        logits = []
        for level, head, skip in zip(self.decoder, self.heads, skips):
            features = level(features, skip)
            if self.training:
                logits.append(head(features))
        logits.append(self.heads[-1](upsampled(features, images.shape[2:])))
        return logits[::-1] if self.training else logits[-1]

    def _transformed(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The deepest map after the transformer, and the skips, of which the deepest has passed it, too."""
        sides = [tuple(one.shape[2:]) for one in maps[-2:]]
        tokens = torch.cat([one.flatten(2).transpose(1, 2) for one in maps[-2:]], dim=1)
        by_map = [places_of(side, tokens.device) for side in sides]
        places = torch.cat(by_map)
        positions = torch.cat(
            [waves(p, tokens.shape[2]) + level for p, level in zip(by_map, self.levels)]
        ).to(tokens.dtype)
        for layer in self.layers:
            tokens = layer(tokens, positions, sides, places)
        parts = tokens.split([len(p) for p in by_map], dim=1)
        larger, deepest = (part.transpose(1, 2).reshape(one.shape) for part, one in zip(parts, maps[-2:]))
        return deepest, [larger, *maps[-3::-1]]

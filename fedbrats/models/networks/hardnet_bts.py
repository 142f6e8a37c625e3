"""HarDNet-BTS (BrainLes 2021): U-Net whose stages are HarDNet blocks, with soft pooling and Mish."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides


def hardnet_bts(
    in_channels: int = 4,
    out_channels: int = 3,
    stem: Sequence[int] = (32, 64),
    growth: Sequence[int] = (14, 16, 20, 20),
    layers: Sequence[int] = (8, 16, 16, 16),
    channels: Sequence[int] = (128, 256, 320, 320),
    multiplier: float = 1.7,
    prior: float | None = 0.1,
) -> HarDNetBTS:
    """Two plain convolutions, then HarDNet blocks in encoder and decoder, section 2.1 of the paper.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^len(growth), 16 by default, and returns
    logits [batch, out_channels, X, Y, Z]; in training a list of one per level of the decoder and of the deepest level,
    the prediction first, all at full size.

    Printed: stages of 32 and 64 channels of one 3x3x3 convolution, then HarDNet blocks of 8 or 16 layers with channels
    doubling as the resolution halves; soft pooling down, trilinear up, Mish; three skips, concatenated; 1x1x1
    convolutions "before up-sampling" for the deep supervision. The block is cited (Chao et al., ICCV 2019): layer l
    reads layers l - 2^n for every 2^n that divides l and has growth times multiplier^n channels with the largest n; the
    odd layers and the last one leave the block.

    Not printed, taken from the public release (facts, no code): growth 14, 16, 20, 20 and multiplier 1.7, widths
    rounded to even; 8, 16, 16, 16 layers; a 1x1x1 convolution to 128, 256, 320, 320 channels after each encoder block
    and to half of the concatenation before each decoder block, whose growth and layers are those of its level;
    BatchNorm, no biases; corners aligned in the interpolation. The blocks of the decoder then give 328, 262 and 124
    channels, as there.

    Contradictions: "all down-samplings are done with Soft-Pooling", but the release halves the sides with the stride of
    the first convolution, which is what three skips and four blocks need; so it is here. Channels do not double beyond
    256. "Each layer of the decoder" has an output (section 2.4); the release has one of the deepest level as well, and
    a second one of the last level beside the prediction, which has the same features and is left out here.

    Training (conf/model/hardnet_bts.yaml): version 1 of section 2.5, regions by sigmoids. See "What is not as printed"
    in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        stem: widths of the two plain convolutions.
        growth: of the block of each level.
        layers: of the block of each level.
        channels: width that each level hands on downwards.
        multiplier: of the growth, for every halving of the layers that have it.
        prior: probability that every output channel starts with.

    Raises:
        ValueError: `stem`, `growth`, `layers` and `channels` that do not go together, or a bad `prior`.
    """
    sizes = {"stem": stem, "growth": growth, "layers": layers, "channels": channels}
    if len(stem) != 2 or len({len(growth), len(layers), len(channels)}) > 1 or len(growth) < 2:
        raise ValueError(
            "model.stem has two widths, and model.growth, model.layers and model.channels one for each of two or more "
            f"levels, got {', '.join(f'{name}={list(values)}' for name, values in sizes.items())}."
        )
    if min(min(values) for values in sizes.values()) < 1 or multiplier < 1:
        raise ValueError(f"model: {sizes} and multiplier={multiplier} must be 1 or more.")
    network = HarDNetBTS(in_channels, out_channels, stem, growth, layers, channels, multiplier)
    for head in network.heads:
        set_output_prior(head, out_channels, prior)
    return network


def harmonic_links(layer: int) -> list[int]:
    """Which layers the layer number `layer` (1-based; 0 is the block's input) reads: l - 2^n where 2^n divides l."""
    return [layer - 2**n for n in range(layer.bit_length()) if layer % 2**n == 0]


def harmonic_width(layer: int, growth: int, multiplier: float) -> int:
    """Channels of a layer: growth times multiplier^n with the largest 2^n that divides it, rounded to even."""
    return max(2, int(growth * multiplier ** (len(harmonic_links(layer)) - 1) + 1) // 2 * 2)


class HarDNetBlock(nn.Module):
    """Layers that read a few of those before them; the odd ones and the last one leave the block, concatenated."""

    def __init__(self, before: int, growth: int, layers: int, multiplier: float) -> None:
        """From `before` to `self.width` channels."""
        super().__init__()
        widths = [before, *(harmonic_width(layer, growth, multiplier) for layer in range(1, layers + 1))]
        self.links = [harmonic_links(layer) for layer in range(1, layers + 1)]
        self.leaving = [layer for layer in range(1, layers + 1) if layer % 2 or layer == layers]
        self.width = sum(widths[layer] for layer in self.leaving)
        self.layers = nn.ModuleList(
            _convolution(sum(widths[link] for link in links), width)
            for links, width in zip(self.links, widths[1:])
        )

    def forward(self, features: Tensor) -> Tensor:
        """[batch, before, X, Y, Z] to [batch, width, X, Y, Z]."""
        made = [features]
        for layer, links in zip(self.layers, self.links):
            made.append(layer(torch.cat([made[link] for link in links], dim=1)))
        return torch.cat([made[layer] for layer in self.leaving], dim=1)


class SoftPool(nn.Module):
    """Mean of each 2x2x2 voxels, weighted by the exponential of their values (Stergiou et al., ICCV 2021)."""

    def forward(self, features: Tensor) -> Tensor:
        """[batch, channels, X, Y, Z] to half of the sides."""
        batch, channels, *sides = features.shape
        x, y, z = (side // 2 for side in sides)
        windows = features.reshape(batch, channels, x, 2, y, 2, z, 2)
        windows = windows.movedim((3, 5, 7), (5, 6, 7)).flatten(5)
        return (windows.softmax(-1) * windows).sum(-1)


class HarDNetBTS(nn.Module):
    """HarDNet blocks, soft pooling down, trilinear up, an output at every level of the decoder."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stem: Sequence[int],
        growth: Sequence[int],
        layers: Sequence[int],
        channels: Sequence[int],
        multiplier: float,
    ) -> None:
        """Arguments as in `hardnet_bts`."""
        super().__init__()
        self.multiple = 2 ** len(growth)
        first, second = stem
        self.stem = nn.Sequential(_convolution(in_channels, first, stride=2), _convolution(first, second))
        self.encoder, self.narrow = nn.ModuleList(), nn.ModuleList()
        skips = list[int]()
        for before, k, depth, width in zip([second, *channels], growth, layers, channels):
            self.encoder.append(block := HarDNetBlock(before, k, depth, multiplier))
            self.narrow.append(_convolution(block.width, width, kernel=1))
            skips.append(block.width)
        self.pool = SoftPool()
        # Decoder levels from the deepest to the shallowest.
        self.join, self.decoder = nn.ModuleList(), nn.ModuleList()
        widths = [channels[-1]]
        for skip, k, depth in list(zip(skips, growth, layers))[-2::-1]:
            joined = widths[-1] + skip
            self.join.append(_convolution(joined, joined // 2, kernel=1))
            self.decoder.append(block := HarDNetBlock(joined // 2, k, depth, multiplier))
            widths.append(block.width)
        self.heads = nn.ModuleList(nn.Conv3d(width, out_channels, 1) for width in widths)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; a list of them in training.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple)
        features, skips = self.stem(images), []
        for level, (block, narrow) in enumerate(zip(self.encoder, self.narrow)):
            skip = block(features if level == 0 else self.pool(features))
            skips.append(skip)
            features = narrow(skip)
        found = [features]
        for join, block, skip in zip(self.join, self.decoder, skips[-2::-1]):
            joined = torch.cat([_resized(found[-1], skip.shape[2:]), skip], dim=1)
            found.append(block(join(joined)))
        if not self.training:
            return _resized(self.heads[-1](found[-1]), images.shape[2:])
        return [_resized(head(one), images.shape[2:]) for head, one in zip(self.heads, found)][::-1]


def _convolution(before: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, width, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm3d(width),
        nn.Mish(),
    )


def _resized(features: Tensor, sides: Sequence[int]) -> Tensor:
    return interpolate(features, size=tuple(sides), mode="trilinear", align_corners=True)

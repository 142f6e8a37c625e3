"""SPiN, the subpixel embedding network (BrainLes 2021): a U-Net that predicts at twice the sides of the slice.

Wong et al., "Small lesion segmentation in brain MRIs with subpixel embedding", section 3.1, Figures 1 and 2. Published
for stroke lesions in one T1 sequence, 2.5D: five slices tell of the one in the middle.

The network takes volumes and predicts all of their slices at once. Its first convolutions are k x k x 5 over X, Y and
the slices, which is a k x k convolution of five slices as channels, all others k x k x 1, so nothing else joins
slices. Beyond the volume the slices are 0, "mean padding" (section 3) of z-scores. What it is given as a volume is a
window of one: its outermost slices see zeros in place of the next ones, so windows for inference are deep and overlap.

Printed and chosen:

- Subpixel embedding: two ResNet blocks of 16 filters, depth-to-space to 4 channels at twice the sides, 1x1 and 3x3 of 8
  filters; guidance by 3x3 of 8 filters at 2x, and after space-to-depth (32 channels) at 1x. With five channels in this
  has 11,200 weights and the learnable downsampler 16,768: "16K" and "11K" are printed the other way round, their sum,
  27,968, is the "27K" of section 4.
- Encoder-decoder: "based on U-Net", "striding and max pooling"; the layers are in the supplement only. Chosen: those of
  the authors' release, a ResNet-18 of widths 32, 64, 128, 196, 196 (stem 7x7 with stride 2, max-pool) and
  up-convolutions (nearest neighbour, 3x3) of 196, 128, 64, 32, 16, 16, each but the last joined with its skip in a 3x3
  convolution. With five channels in and one out it has 5,160,201 parameters, and with the projections that the release
  has in blocks that do not use them 5,257,513: the printed "5.3M".
- The latent vector g(x) has 24 channels, 16 of the decoder and 8 of the guidance (the release has another layer there).
- BatchNorm and a leaky ReLU (0.1) after every convolution but those of the output and the downsampler (no BatchNorm),
  as in the release; nothing of it is printed.
- Several regions: section 3 has "K outputs" and argmax; here the regions are sigmoids. All share the downsampler's four
  weights, of which 4xHxW are printed. It weighs logits, as in the release; printed are sigmoids in [0, 1].

Not as printed: conf/model/spin.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.models.prior import set_output_prior

SLOPE = 0.1  # of the leaky ReLU
EMBEDDING, GUIDANCE = 16, 8  # filters


def spin(
    in_channels: int = 4,
    out_channels: int = 3,
    slices: int = 5,
    channels: Sequence[int] = (32, 64, 128, 196, 196),
    blocks: int = 2,
    decoder: Sequence[int] = (196, 128, 64, 32, 16, 16),
    prior: float | None = 0.1,
) -> SPiN:
    """SPiN on volumes of axial slices; the nested regions as sigmoids.

    Takes float32 [batch, in_channels, X, Y, Z], any sides, and returns logits [batch, out_channels, X, Y, Z].

    Args:
        in_channels: modalities.
        out_channels: see `tasks.segmentation`.
        slices: that tell of the one in the middle (c), an odd number.
        channels: of the stem and the stages of the encoder, each 16 or more.
        blocks: residual blocks of a stage.
        decoder: channels of the decoder, from the deepest to 2x; one more than `channels`.
        prior: probability that every region starts with, see `set_output_prior`.

    Raises:
        ValueError: settings that make no network.
    """
    if slices < 1 or slices % 2 == 0:
        raise ValueError(f"model.slices={slices}: must be odd, with one in the middle.")
    # With fewer, strided 1x1 convolutions write past their memory on CPUs with channels last (oneDNN issue 6035).
    if len(channels) < 2 or min(channels) < 16:
        raise ValueError(f"model.channels={list(channels)}: two or more widths of 16 or more.")
    if len(decoder) != len(channels) + 1 or min(decoder) < 1 or blocks < 1:
        raise ValueError(
            f"model.decoder={list(decoder)}, model.blocks={blocks}: {len(channels) + 1} widths (one more than "
            "model.channels), 1 block or more."
        )
    network = SPiN(in_channels, out_channels, slices, channels, blocks, decoder)
    set_output_prior(network.output, out_channels, prior)
    return network


def convolution(inputs: int, width: int, kernel: int, stride: int = 1, slices: int = 1) -> nn.Conv3d:
    """A 2D convolution of every slice without bias, or of `slices` next to each other."""
    return nn.Conv3d(
        inputs,
        width,
        (kernel, kernel, slices),
        stride=(stride, stride, 1),
        padding=(kernel // 2, kernel // 2, slices // 2),
        bias=False,
    )


def layer(inputs: int, width: int, kernel: int, stride: int = 1, slices: int = 1) -> nn.Sequential:
    """`convolution`, BatchNorm, leaky ReLU."""
    found = convolution(inputs, width, kernel, stride, slices)
    return nn.Sequential(found, nn.BatchNorm3d(width), nn.LeakyReLU(SLOPE, inplace=True))


def depth_to_space(features: Tensor) -> Tensor:
    """[batch, 4 C, X, Y, Z] to [batch, C, 2X, 2Y, Z]: four channels are a square of 2 x 2 (Figure 2b)."""
    b, c, x, y, z = features.shape
    squares = features.reshape(b, c // 4, 2, 2, x, y, z).permute(0, 1, 4, 2, 5, 3, 6)
    return squares.reshape(b, c // 4, 2 * x, 2 * y, z)


def space_to_depth(features: Tensor) -> Tensor:
    """[batch, C, 2X, 2Y, Z] to [batch, 4 C, X, Y, Z], the inverse of `depth_to_space`."""
    b, c, x, y, z = features.shape
    squares = features.reshape(b, c, x // 2, 2, y // 2, 2, z).permute(0, 1, 3, 5, 2, 4, 6)
    return squares.reshape(b, 4 * c, x // 2, y // 2, z)


class Residual(nn.Module):
    """A ResNet block: two 3x3 layers beside the input, or a 1x1 convolution of it where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int = 1, slices: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(layer(inputs, width, 3, stride, slices), layer(width, width, 3))
        same = inputs == width and stride == slices == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, width, 1, stride, slices)
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, inputs, X, Y, Z] to [batch, width, X / stride, Y / stride, Z]."""
        found: Tensor = self.activation(self.layers(features) + self.shortcut(features))
        return found


class DecoderLevel(nn.Module):
    """Up to the given sides by nearest neighbour, 3x3, and the skip joined by another 3x3 unless it is the last."""

    def __init__(self, inputs: int, width: int, skip: int) -> None:
        super().__init__()
        self.up = layer(inputs, width, 3)
        self.join = layer(width + skip, width, 3) if skip else None

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Features [batch, inputs, ...] and skip [batch, skip, X, Y, Z] to [batch, width, X, Y, Z]."""
        features = torch.cat([self.up(interpolate(features, skip.shape[2:])), skip], dim=1)
        return features if self.join is None else self.join(features)


class Downsampler(nn.Module):
    """The mean of the 2 x 2 predictions of a pixel, with weights that their surroundings tell (Figure 2a)."""

    def __init__(self, inputs: int) -> None:
        """`inputs` channels of the latent vector and the predictions together."""
        super().__init__()
        self.weights = nn.Sequential(
            *(convolution(4 * inputs, EMBEDDING, 3), nn.LeakyReLU(SLOPE, inplace=True)),
            *(convolution(EMBEDDING, EMBEDDING, 3), nn.LeakyReLU(SLOPE, inplace=True)),
            convolution(EMBEDDING, 4, 1),
        )

    def forward(self, latent: Tensor, predicted: Tensor) -> Tensor:
        """Latent vector and logits [batch, channels, 2X, 2Y, Z] to logits [batch, channels, X, Y, Z]."""
        weights = self.weights(space_to_depth(torch.cat([latent, predicted], dim=1))).softmax(1)
        squares = space_to_depth(predicted).unflatten(1, (predicted.shape[1], 4))
        return (squares * weights.unsqueeze(1)).sum(2)


class SPiN(nn.Module):
    """The network behind `spin`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slices: int,
        channels: Sequence[int],
        blocks: int,
        decoder: Sequence[int],
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Residual(in_channels, EMBEDDING, slices=slices), Residual(EMBEDDING, EMBEDDING)
        )
        self.embedding = nn.Sequential(layer(EMBEDDING // 4, GUIDANCE, 1), convolution(GUIDANCE, GUIDANCE, 3))
        self.guide, self.guide_subpixels = layer(4 * GUIDANCE, GUIDANCE, 3), layer(GUIDANCE, GUIDANCE, 3)
        self.stem = layer(in_channels, channels[0], 7, 2, slices)
        self.pool = nn.MaxPool3d((3, 3, 1), stride=(2, 2, 1), padding=(1, 1, 0))
        self.stages = nn.ModuleList(
            nn.Sequential(
                Residual(before, width, 1 if index == 0 else 2),
                *(Residual(width, width) for _ in range(blocks - 1)),
            )
            for index, (before, width) in enumerate(pairwise(channels))
        )
        skips = [
            *channels[-2::-1],
            GUIDANCE,
            0,
        ]  # from the deepest; the last one's is joined without a convolution
        ways = [channels[-1], *decoder]
        self.decoder = nn.ModuleList(DecoderLevel(i, o, skip) for (i, o), skip in zip(pairwise(ways), skips))
        latent = decoder[-1] + GUIDANCE
        self.output = nn.Conv3d(latent, out_channels, (3, 3, 1), padding=(1, 1, 0))
        self.downsampler = Downsampler(latent + out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images` [batch, in_channels, X, Y, Z], of the same sides."""
        embedding = self.embedding(depth_to_space(self.features(images)))
        skips = [self.guide_subpixels(embedding), self.guide(space_to_depth(embedding)), self.stem(images)]
        features = self.pool(skips[-1])
        for stage in self.stages:
            features = stage(features)
            skips.append(features)
        skips.pop()  # the decoder's input
        for level in self.decoder:
            features = level(features, skips.pop())
        return self.downsampler(features, self.output(features))

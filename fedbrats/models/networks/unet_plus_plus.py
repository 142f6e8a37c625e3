"""Multi-plane UNet++ on an Xception encoder (BrainLes 2021), in 2D: slices of all three planes, which vote."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.models.blocks import convolutions_2d
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

LEVELS = 5  # how often a slice is halved
# Level and step of the decoder's stages, each after those that it takes; full size has the last one alone.
ORDER = [(level, step) for step in range(1, LEVELS) for level in range(1, LEVELS - step + 1)] + [(0, LEVELS)]


def unet_plus_plus(
    in_channels: int = 4,
    out_channels: int = 4,
    encoder: Sequence[int] = (64, 128, 256, 728, 2048),
    middle: int = 8,
    decoder: Sequence[int] = (16, 32, 64, 128, 256),
    prior: float | None = 0.1,
) -> UNetPlusPlus:
    """UNet++ of the paper on "a multi-plane ensemble of UNet++ models", section 2.2 and Figure 3.

    Takes float32 [batch, in_channels, A, B] with sides that are multiples of 32 and returns logits [batch,
    out_channels, A, B]. X^(i,j) is the decoder's stage j at level i, whose sides are the slice's over 2^i; X^(i,0) is
    the encoder. Only the last stage is supervised, as printed (Figure 3). No count of parameters is printed; the
    encoder is checked against Keras's Xception, and with `in_channels` 4 all of it against the UNet++ of
    segmentation_models_pytorch 0.3.3, which has the printed parts.

    Printed and chosen:

    - Encoder: "a Xception model" of Chollet (CVPR 2017). Its features at 1/2 to 1/32 are those before the next
      strided block, and the first two convolutions are padded, so that every level halves the sides.
    - Decoder: "five final stages X^(4,1) - X^(0,5) and multiple corresponding intermediate stages", two times 3x3
      convolution, batch norm and ReLU each; inputs are X^(i+1,j-1), upsampled by nearest neighbour, and all of
      X^(i,k), k < j. The encoder has nothing at full size, so X^(0,5) has X^(1,4) alone.
    - Widths: "in each stage j in [1,5] is 2^(j+3), i.e. 16, 32, 64, 128, and 256, respectively". Taken literally,
      X^(0,5) at full size would have 256 and X^(4,1) at 1/16 only 16. Here, as in UNet++, the deepest has the most:
      256, 128, 64, 32 and 16. Those of the intermediate stages are not printed: the encoder's at that level.
    - Head: "a softmax segmentation head" for "all four possible output classes": a 3x3 convolution.
    - Planes: "an individual UNet++ ... in each anatomical plane", that is three runs with `model.input.planes=[axial]`
      and so on, and `fedbrats predict checkpoint=[A,B,C] inference.combine=vote`. By default one network sees the
      slices of all planes, a third of the traffic and of the rounds; its three predictions vote as well
      (`inference=plane_vote`). "A majority vote" says nothing of three different labels: the mean probability decides
      between planes, and runs vote region by region.

    Not as printed: conf/model/unet_plus_plus.yaml and "What is not as printed" in models/README.md.

    Args:
        in_channels: modalities.
        out_channels: see `tasks.segmentation`.
        encoder: widths at 1/2, 1/4, 1/8, 1/16 and 1/32; 16 or more each.
        middle: blocks of the encoder that keep its sides.
        decoder: widths of the final stages from full size down to 1/16.
        prior: probability of tumour that the output starts with, see `set_output_prior`.

    Raises:
        ValueError: widths or a number of blocks that make no network; in the forward pass, sides that are not
            multiples of 32.
    """
    # With fewer than 16 channels the backward pass of strided 1x1 convolutions writes past its memory on CPUs with
    # channels last (oneDNN issue 6035, torch 2.13).
    for key, widths, least in (("encoder", encoder, 16), ("decoder", decoder, 1)):
        if len(widths) != LEVELS or min(widths) < least:
            raise ValueError(f"model.{key}={list(widths)}: {LEVELS} widths of {least} or more are needed.")
    if middle < 0:
        raise ValueError(f"model.middle={middle}: must be 0 or more.")
    network = UNetPlusPlus(in_channels, out_channels, tuple(encoder), middle, tuple(decoder))
    set_output_prior(network, out_channels, prior)
    return network


def separable(before: int, width: int) -> nn.Sequential:
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution over all of them."""
    return nn.Sequential(
        nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, width, 1, bias=False),
    )


class XceptionBlock(nn.Module):
    """Separable convolutions beside a shortcut; a stride of 2 is a max-pool on one side and 1x1 on the other."""

    def __init__(self, before: int, widths: Sequence[int], stride: int, relu_first: bool = True) -> None:
        """One separable convolution per width, each after a ReLU; `relu_first` false leaves out the first of these."""
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in zip([before, *widths[:-1]], widths):
            layers += [nn.ReLU(), separable(i, o), nn.BatchNorm2d(o)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.layers = nn.Sequential(*layers[0 if relu_first else 1 :])
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, widths[-1], 1, stride=stride, bias=False), nn.BatchNorm2d(widths[-1])
            )

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, before, A, B] to [batch, widths[-1], A / stride, B / stride]."""
        found: Tensor = self.layers(features) + self.shortcut(features)
        return found


def xception(in_channels: int, widths: Sequence[int], middle: int) -> nn.ModuleList:
    """The five stages of Xception, each of which halves the sides."""
    first, second, third, fourth, last = widths
    stem = [
        *(nn.Conv2d(in_channels, first // 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(first // 2)),
        *(
            nn.ReLU(),
            nn.Conv2d(first // 2, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        ),
    ]
    exit_widths = (last // 2, 3 * last // 4)  # 1024 and 1536
    return nn.ModuleList(
        [
            nn.Sequential(*stem),
            XceptionBlock(first, [second, second], 2, relu_first=False),
            XceptionBlock(second, [third, third], 2),
            nn.Sequential(
                XceptionBlock(third, [fourth, fourth], 2),
                *(XceptionBlock(fourth, [fourth] * 3, 1) for _ in range(middle)),
            ),
            nn.Sequential(
                XceptionBlock(fourth, [fourth, exit_widths[0]], 2),
                *(separable(*exit_widths), nn.BatchNorm2d(exit_widths[1]), nn.ReLU()),
                *(separable(exit_widths[1], last), nn.BatchNorm2d(last)),
            ),
        ]
    )


class UNetPlusPlus(nn.Module):
    """The network behind `unet_plus_plus`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        encoder: tuple[int, ...],
        middle: int,
        decoder: tuple[int, ...],
    ) -> None:
        """Arguments as in `unet_plus_plus`."""
        super().__init__()
        self.encoder = xception(in_channels, encoder, middle)

        def width(level: int, step: int) -> int:  # of X^(level,step)
            return decoder[level] if step and level + step == LEVELS else encoder[level - 1]

        self.stages = nn.ModuleDict()
        for level, step in ORDER:
            beside = [width(level, k) for k in range(step)] if level else []
            inputs = width(level + 1, step - 1) + sum(beside)
            self.stages[f"x{level}_{step}"] = convolutions_2d(inputs, [width(level, step)] * 2)
        self.head = nn.Conv2d(decoder[0], out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that are not multiples of 32.
        """
        check_sides(images, 2**LEVELS)
        features = images
        rows: list[list[Tensor]] = [
            [] for _ in range(LEVELS + 1)
        ]  # rows[i][j] is X^(i,j), at full size the last alone
        for level, stage in enumerate(self.encoder, 1):
            features = stage(features)
            rows[level].append(features)
        for level, step in ORDER:
            up = interpolate(rows[level + 1][step - 1], scale_factor=2, mode="nearest")
            joined = torch.cat([up, *rows[level][::-1]], dim=1)
            rows[level].append(self.stages[f"x{level}_{step}"](joined))
        logits: Tensor = self.head(rows[0][0])
        return logits

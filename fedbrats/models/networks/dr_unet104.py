"""DR-UNet104 (Colman et al., BrainLes 2020): a 2D U-Net with a deep pre-activation bottleneck encoder.

Colman et al., "DR-Unet104 for multimodal MRI brain tumor segmentation" (BrainLes 2020), section 2.1 and Figures 1-3.
The numbers that only the figures hold (stacks, widths, padding, places of dropout) come from the public release.

Where the print is silent or contradicts itself:

- Transposed convolutions: the text says 2x2 kernels, the caption of Figure 3 and the release 3x3. Here 3x3.
- Dropout: the text says "after each level". The release leaves out level 1 and the last decoder level. Here as the
  release; a skip carries the level's output after dropout.
- Shortcuts: "input is added" (Figure 2), so a 1x1 shortcut works on the block's input before BN and ReLU.
- Cropping: right after the transposed convolution, before the skip is joined. The print does not say.
- Convolution bias: not printed. Here only the last convolution has one; the others are followed by BN.

Not as printed (conf/model/dr_unet104.yaml; "What is not as printed" in models/README.md): slices are drawn within the
box around the brain and with replacement, grey values are not rounded to 8 bits. The small variant has half of its
slices on tumour and an output bias set by `prior`; the full one has He initialisation alone (section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

STACKS = (2, 3, 3, 5, 14, 4)  # bottlenecks of the encoder levels 1-5 and of the bridge
EXACT = 8  # levels 2-4 halve the sides, which must come out whole
PADDED = 4  # level 5 and the bridge halve them twice more; level 4's output is padded to a multiple of this
LEAST = 40  # then level 4 has 5 pixels in a row, padded to 8, and the bridge 2


def dr_unet104(
    in_channels: int = 4,
    out_channels: int = 4,
    width: int = 64,
    stacks: Sequence[int] = STACKS,
    dropout: float = 0.2,
    prior: float | None = 0.1,
) -> DRUNet:
    """DR-UNet104 with He initialisation; softmax over background, NCR, ED and ET by default.

    Takes float32 [batch, in_channels, A, B] with sides that are multiples of 8 and 40 or more, and returns logits
    [batch, out_channels, A, B]. With the default stacks 104 convolutions lie on the main path: 31 bottlenecks of
    three, five decoder blocks of two, and the last one. Shortcuts and transposed convolutions are not counted.

    Args:
        in_channels: modalities.
        out_channels: see `fedbrats.tasks.segmentation`.
        width: channels of level 1; each level has twice as many as the one before. A multiple of 4.
        stacks: bottlenecks of levels 1-5 and of the bridge.
        dropout: probability that a single activation is dropped.
        prior: probability that the output starts with, see `set_output_prior`.

    Raises:
        ValueError: `width` or `stacks` that make no network; in the forward pass, sides that it cannot take.
    """
    if width < 4 or width % 4:
        raise ValueError(
            f"model.width={width}: must be a multiple of 4, the bottlenecks have a quarter of it."
        )
    if len(stacks) != len(STACKS) or min(stacks) < 1:
        raise ValueError(f"model.stacks={list(stacks)}: six numbers of 1 or more, levels 1-5 and the bridge.")
    network = DRUNet(in_channels, out_channels, width, stacks, dropout)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    set_output_prior(network, out_channels, prior)
    return network


def _activation(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _pointwise(inputs: int, outputs: int, halve: bool = False) -> list[nn.Module]:
    """A 1x1 convolution, with stride 2 to `halve` the sides."""
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    # The stride is a module of its own, with the same result: the backward pass of strided 1x1 convolutions of fewer
    # than 16 channels writes past its memory on CPUs with channels last (oneDNN issue 6035, torch 2.13).
    return [nn.MaxPool2d(1, stride=2), conv] if halve else [conv]


class Residual(nn.Module):
    """Sum of a path and of its input, through a 1x1 convolution where the shape changes."""

    def __init__(self, path: Sequence[nn.Module], inputs: int, outputs: int, halve: bool = False) -> None:
        super().__init__()
        self.path = nn.Sequential(*path)
        changes = inputs != outputs or halve
        self.shortcut = nn.Sequential(*_pointwise(inputs, outputs, halve)) if changes else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, inputs, A, B] to [batch, outputs, A, B], sides halved if so built."""
        return self.path(features) + self.shortcut(features)


def _bottleneck(inputs: int, width: int, halve: bool = False, raw: bool = False) -> Residual:
    """1x1 to a quarter, 3x3, 1x1 back, BN and ReLU before each; the raw image has none before the first."""
    inner = width // 4
    path = [
        *([] if raw else _activation(inputs)),
        *_pointwise(inputs, inner, halve),
        *_activation(inner),
        nn.Conv2d(inner, inner, 3, padding=1, bias=False),
        *_activation(inner),
        *_pointwise(inner, width),
    ]
    return Residual(path, inputs, width, halve)


def _plain_block(inputs: int, width: int) -> Residual:
    """Two 3x3 convolutions, BN and ReLU before each."""
    path = [
        *_activation(inputs),
        nn.Conv2d(inputs, width, 3, padding=1, bias=False),
        *_activation(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
    ]
    return Residual(path, inputs, width)


class Up(nn.Module):
    """A decoder level: double the sides, crop to the skip, join it, one residual block, dropout."""

    def __init__(self, inputs: int, skip: int, dropout: float | None) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(
            inputs, skip, 3, stride=2, padding=1, output_padding=1, bias=False
        )  # exactly twice the sides
        self.block = _plain_block(2 * skip, skip // 2)
        self.dropout = nn.Identity() if dropout is None else nn.Dropout(dropout)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Features of the level below and the skip [batch, skip, A, B] to [batch, skip / 2, A, B]."""
        joined = torch.cat([_cropped(self.up(features), skip), skip], dim=1)
        return self.dropout(self.block(joined))


class DRUNet(nn.Module):
    """The network behind `dr_unet104`."""

    def __init__(
        self, in_channels: int, out_channels: int, width: int, stacks: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()  # levels 1-5, then the bridge
        inputs = in_channels
        for level, stack in enumerate(stacks):
            outputs = width * 2**level
            blocks: list[nn.Module] = [_bottleneck(inputs, outputs, halve=level > 0, raw=level == 0)]
            blocks += [_bottleneck(outputs, outputs) for _ in range(stack - 1)]
            self.encoder.append(nn.Sequential(*blocks, *([nn.Dropout(dropout)] if level else [])))
            inputs = outputs
        self.decoder = nn.ModuleList()  # deepest level first
        for level in reversed(range(len(stacks) - 1)):
            skip = width * 2**level
            self.decoder.append(Up(inputs, skip, dropout if level else None))
            inputs = skip // 2
        self.head = nn.Sequential(*_activation(inputs), nn.Conv2d(inputs, out_channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images float32 [batch, in_channels, A, B], same sides.

        Raises:
            ValueError: sides that are no multiples of 8, or less than 40.
        """
        check_sides(images, EXACT)
        if min(images.shape[2:]) < LEAST:
            raise ValueError(
                f"input sides {list(images.shape[2:])}: sides must be {LEAST} or more, or one pixel is left in the "
                "bridge, too few for its norm; set train.patch / inference.window."
            )
        features, skips = images, []
        for number, level in enumerate(self.encoder, start=1):
            features = level(_padded(features) if number == 5 else features)
            skips.append(features)
        features = skips.pop()
        for level in self.decoder:
            features = level(features, skips.pop())
        return self.head(features)


def _padded(features: Tensor) -> Tensor:
    """Zeros around `features`, so that level 5 and the bridge halve whole sides: 30x30 becomes 32x32."""
    missing = [-side % PADDED for side in features.shape[2:]]
    return pad(features, [size for total in reversed(missing) for size in (total // 2, total - total // 2)])


def _cropped(features: Tensor, like: Tensor) -> Tensor:
    """The middle of `features` with the sides of `like`; takes back what `_padded` added."""
    for axis in (2, 3):
        start = (features.shape[axis] - like.shape[axis]) // 2
        features = features.narrow(axis, start, like.shape[axis])
    return features

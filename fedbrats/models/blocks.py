"""Parts that the networks of several papers share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

NORMS: dict[str, tuple[str, dict[str, object]]] = {
    "batch": ("batch", {}),
    # MONAI's plain "instance" has neither weights nor statistics, so nothing of it could ever be kept at a site.
    "instance": ("instance", {"affine": True}),
    "group": ("group", {"num_groups": 8}),
}
SLOPE = 0.01  # of the leaky ReLU, nnU-Net's


def norm_layer(name: str) -> tuple[str, dict[str, object]]:
    """MONAI's description of the normalisation called `name` (batch, instance or group).

    Raises:
        ValueError: for any other name.
    """
    if name not in NORMS:
        raise ValueError(f"model.norm: unknown normalisation {name!r}; choose one of {', '.join(NORMS)}.")
    return NORMS[name]


def stage(
    before: int,
    widths: Sequence[int],
    stride: int | Sequence[int] = 1,
    dropout: float = 0.0,
    kernel: int | Sequence[int] = 3,
) -> nn.Sequential:
    """A stage of nnU-Net: one 3x3x3 convolution, instance norm and leaky ReLU per width; the first has the stride.

    `stride` and `kernel` of all axes or of each. `dropout` is the probability that a single activation is dropped after
    each of them; 0 leaves the layers out.
    """
    from monai.networks.blocks import Convolution  # seconds, which reading a configuration need not wait for

    return nn.Sequential(
        *(
            Convolution(
                3,
                i,
                o,
                strides=stride if index == 0 else 1,
                kernel_size=kernel,
                adn_ordering="NAD",
                dropout=dropout or None,
                norm=("instance", {"affine": True}),
                act=("leakyrelu", {"negative_slope": SLOPE, "inplace": True}),
            )
            for index, (i, o) in enumerate(zip([before, *widths[:-1]], widths))
        )
    )


def upsampled(features: Tensor, sides: Sequence[int]) -> Tensor:
    """Features [batch, C, *S] to [batch, C, *sides], linearly along each axis; untouched where they have them."""
    if features.shape[2:] == tuple(sides):
        return features
    mode = "trilinear" if len(sides) == 3 else "bilinear"
    return interpolate(features, size=tuple(sides), mode=mode, align_corners=False)


def he_initialise(module: nn.Module) -> None:
    """He initialisation for the leaky ReLU, biases zero; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_widths(channels: Sequence[int], convolutions: int) -> None:
    """Check the widths and the number of convolutions of a network made of stages.

    Raises:
        ValueError: naming the key that is out of range.
    """
    if len(channels) < 2:
        raise ValueError(f"model.channels={list(channels)}: name the widths of two or more levels.")
    if convolutions < 1:
        raise ValueError(f"model.convolutions={convolutions}: must be 1 or more.")


def check_group_widths(channels: Sequence[int]) -> None:
    """Check that group norm can divide every one of `channels` into its 8 groups.

    Raises:
        ValueError: it cannot.
    """
    if any(width % 8 for width in channels):
        raise ValueError(f"model.channels: {list(channels)} must be multiples of 8 for model.norm=group.")


def convolutions_2d(before: int, widths: Sequence[int]) -> nn.Sequential:
    """One 3x3 convolution without bias, BatchNorm and ReLU per width, from `before` channels."""
    layers: list[nn.Module] = []
    for i, o in zip([before, *widths[:-1]], widths):
        layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def start_at_half(last: nn.Module) -> None:
    """Make the last layer of a classifier small, its bias zero: every case begins near one half, at no large loss."""
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(0.01)
        last.bias.zero_()

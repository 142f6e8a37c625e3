"""3D U-Net baseline ("BRATS2021: U-Net baseline", Druzhinina et al., BrainLes 2021), for any set of MRI sequences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d

from fedbrats.models.blocks import norm_layer
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "prelu": nn.PReLU}


def unet_baseline(
    in_channels: int = 4,
    out_channels: int = 3,
    blocks: int = 5,
    filters: int = 16,
    norm: str = "batch",
    activation: str = "prelu",
    preactivation: bool = True,
    prior: float | None = 0.1,
) -> UNetBaseline:
    """The light 3D U-Net of TorchIO's author in six settings, section 2.2 of the paper; the default is model 6.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(blocks - 1), 16 by default, and returns
    logits [batch, out_channels, X, Y, Z].

    Printed, as `blocks`, `filters`, `norm`, `activation`, `preactivation`: model 1 and 2 (patches of 64 and 128) are 3,
    4, batch, relu, false; model 3 is 5, 4, batch, prelu, false; model 4 is 5, 16, instance, leaky_relu, false; model 5
    is 5, 4, batch, prelu, true; model 6 is 5, 16, batch, prelu, true. Models 1 to 4 are said to up-sample linearly and
    5 and 6 trilinearly; in the package that the paper names, "linear" is trilinear in 3D, so all six do that here.

    Not printed, taken from that package (facts, no code): the last block counts among the encoding ones; each has two
    3x3x3 convolutions, of which the first keeps the width it is given (the first block makes it `filters`) and the
    second doubles it; max pooling; the skip is concatenated, and both convolutions of a decoder block have the width of
    their skip; biases; the very first convolution has neither norm nor activation before it and no norm after it.
    Padding, which the package leaves out unless it is asked for, keeps the sides. Not printed: the outputs, here the
    three regions that are scored.

    Contradictions: the best row of Table 2 (20) has two sequences, T1c and FLAIR, and is called "multi-modal"; its
    columns of TC and WT seem to be the other way round (single FLAIR is better at TC than at WT).

    Training (conf/model/unet_baseline.yaml): row 19 of Table 2. `model.input.modalities` chooses the sequences. See
    "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        blocks: of the encoder, the deepest one among them.
        filters: width of the first convolution.
        norm: batch, instance or group.
        activation: relu, leaky_relu or prelu.
        preactivation: norm and activation before each convolution instead of after it.
        prior: probability that every output channel starts with.

    Raises:
        ValueError: fewer than two blocks, no filters, an unknown norm or activation, or a bad `prior`.
    """
    if blocks < 2 or filters < 1:
        raise ValueError(
            f"model.blocks={blocks}, model.filters={filters}: 2 or more blocks, 1 or more filters."
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"model.activation={activation}: choose one of {', '.join(ACTIVATIONS)}.")
    if norm == "group" and filters % 8:
        raise ValueError(f"model.filters={filters}: must be a multiple of 8 for model.norm=group.")
    make = partial(_convolution, norm=norm, activation=activation, preactivation=preactivation)
    network = UNetBaseline(in_channels, out_channels, [filters * 2**level for level in range(blocks)], make)
    set_output_prior(network, out_channels, prior)
    return network


def _convolution(
    before: int, width: int, first: bool = False, *, norm: str, activation: str, preactivation: bool
) -> nn.Sequential:
    """3x3x3 from `before` to `width` channels, norm and activation in order; the very `first` has no norm."""
    convolution, active = nn.Conv3d(before, width, 3, padding=1), ACTIVATIONS[activation]()
    if first:
        return nn.Sequential(convolution, active)
    channels = before if preactivation else width
    normed = get_norm_layer(norm_layer(norm), spatial_dims=3, channels=channels)
    return nn.Sequential(*((normed, active, convolution) if preactivation else (convolution, normed, active)))


class UNetBaseline(nn.Module):
    """Two convolutions per block, max pooling down, trilinear up, skips concatenated."""

    def __init__(
        self, in_channels: int, out_channels: int, widths: list[int], make: Callable[..., nn.Sequential]
    ) -> None:
        """`widths` of the first convolution of each block."""
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        before = [in_channels, *(2 * width for width in widths[:-1])]
        self.encoder = nn.ModuleList(
            nn.Sequential(make(i, o, first=level == 0), make(o, 2 * o))
            for level, (i, o) in enumerate(zip(before, widths))
        )
        # Decoder blocks from the deepest to the shallowest; what comes up is twice as wide as the skip.
        skips = [2 * width for width in widths[-2::-1]]
        self.decoder = nn.ModuleList(nn.Sequential(make(3 * skip, skip), make(skip, skip)) for skip in skips)
        self.head = nn.Conv3d(skips[-1], out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=True)
        features, skips = images, []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else max_pool3d(features, 2))
            skips.append(features)
        for block, skip in zip(self.decoder, skips[-2::-1]):
            larger = interpolate(features, scale_factor=2, mode="trilinear", align_corners=False)
            features = block(torch.cat([skip, larger], dim=1))
        return self.head(features)

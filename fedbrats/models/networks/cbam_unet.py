"""Deeply supervised attention U-Net with CBAM on its skips (BrainLes 2021), trained with positive mining."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from fedbrats.models.blocks import check_group_widths, check_widths, norm_layer, upsampled
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

KERNEL = 7  # of the spatial attention's convolution
DILATED = 2  # convolutions at the bottom, and their dilation rate


def cbam_unet(
    in_channels: int = 4,
    out_channels: int = 3,
    channels: Sequence[int] = (48, 96, 192, 384),
    reduction: int = 16,
    norm: str = "group",
    prior: float | None = 0.1,
) -> CBAMUNet:
    """3D attention U-Net with CBAM of the paper on positive mining, sections 2.1 to 2.3.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 8 by default, and
    returns logits [batch, out_channels, X, Y, Z]; in training a list of one per supervised feature map, the final one
    first and the deepest last, all upsampled to full size.

    Printed and chosen (the figure of the network is no text):

    - Widths: 48 at the first convolution, 4 stages, "depth doubling" (section 2.3), so 48, 96, 192, 384 and three
      poolings. Every block is two 3x3x3 convolutions of stride 1 with ReLU.
    - Norm: none is mentioned. Chosen: group norm of 8 groups between convolution and ReLU, since so deep a network
      hardly trains without; it does not mix the samples of a batch. `norm` also takes batch and instance.
    - Bottom: two convolutions of dilation rate 2 follow the fourth stage's double convolution. "A skip connection
      between each level of the stage" is printed for all four stages, so the attended fourth stage is joined to them,
      and one convolution brings both to the width of the third stage. From there a block of the decoder halves its
      width in its second convolution ("depth halving at each up-sampling"), but the last, which has 48.
    - Upsampling by 2x2x2: not said how. Trilinear, as printed for the deep supervision.
    - Deep supervision: printed "on the convolutions following the encoder and dilation layers" and on each "feature map
      that is then up-sampled in the decoder". Read as the dilated convolutions' output, the joined map, and the outputs
      of the decoder's third and second stage: four 1x1x1 convolutions, beside the final one. The sigmoid is the loss's,
      so after the upsampling. Weights: not printed, equal.
    - CBAM: the channel attention is sigmoid(MLP(average) times MLP(maximum)), a Hadamard product in the equation and
      in the text, where Woo et al. (ECCV 2018), who are cited, have a sum. Built as printed. The MLP is "1 layer": one
      hidden layer, a 16th of the width, with ReLU, as in Woo et al. The second equation lacks the
      concatenation that its text names, and F'' is printed as Mc(F') times F' after Ms has been defined: read as
      Ms(F') times F'. "1 x H x W" is a 2D map; here it is 3D. Its kernel is not printed: 7, that of Woo et al.
    - Initialisation: not printed. PyTorch's, and `prior`.

    Training: conf/model/cbam_unet.yaml; see "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        channels: width per stage.
        reduction: of the width in the hidden layer of the channel attention.
        norm: batch, instance or group.
        prior: probability that every output channel of the final convolution starts with.

    Raises:
        ValueError: fewer than two stages, a reduction below 1, an unknown `norm`, widths that 8 does not divide with
            group norm, or a bad `prior`.
    """
    check_widths(channels, 1)
    if norm == "group":
        check_group_widths(channels)
    if reduction < 1:
        raise ValueError(f"model.reduction={reduction}: must be 1 or more.")
    network = CBAMUNet(in_channels, out_channels, tuple(channels), reduction, norm)
    set_output_prior(network, out_channels, prior)
    return network


class CBAM(nn.Module):
    """Convolutional block attention: which channels, then which voxels."""

    def __init__(self, width: int, reduction: int) -> None:
        """`width` of the features; the hidden layer has `width // reduction` neurons, at least one."""
        super().__init__()
        hidden = max(1, width // reduction)
        # A perceptron of pooled channels, as convolutions of one voxel.
        self.mlp = nn.Sequential(nn.Conv3d(width, hidden, 1), nn.ReLU(), nn.Conv3d(hidden, width, 1))
        self.conv = nn.Conv3d(2, 1, KERNEL, padding=KERNEL // 2)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, width, X, Y, Z] times its attention, the same shape."""
        mean, largest = (f(features, dim=(2, 3, 4), keepdim=True) for f in (torch.mean, torch.amax))
        features = torch.sigmoid(self.mlp(mean) * self.mlp(largest)) * features
        pooled = torch.cat([f(features, dim=1, keepdim=True) for f in (torch.mean, torch.amax)], dim=1)
        return torch.sigmoid(self.conv(pooled)) * features


class CBAMUNet(nn.Module):
    """Double convolutions down, dilated ones at the bottom, attended skips, and heads along the way up."""

    def __init__(
        self, in_channels: int, out_channels: int, channels: tuple[int, ...], reduction: int, norm: str
    ) -> None:
        """Arguments as in `cbam_unet`."""
        super().__init__()
        *skips, deepest = channels
        self.multiple, self.instance_norm = 2 ** len(skips), norm == "instance"
        self.encoder = nn.ModuleList(
            _convolutions(before, [width] * 2, norm) for before, width in zip([in_channels, *skips], channels)
        )
        self.pool = nn.MaxPool3d(2)
        self.attention = nn.ModuleList(CBAM(width, reduction) for width in channels)
        self.dilated = _convolutions(deepest, [deepest] * DILATED, norm, DILATED)
        self.join = _convolutions(2 * deepest, [skips[-1]], norm)
        # Decoder stages from the deepest to the shallowest; each hands on the width of the next.
        last = [*skips[-2::-1], skips[0]]
        self.decoder = nn.ModuleList(
            _convolutions(2 * width, [width, out], norm) for width, out in zip(skips[::-1], last)
        )
        supervised = [deepest, skips[-1], *last]
        self.heads = nn.ModuleList(nn.Conv3d(width, out_channels, 1) for width in supervised)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of `images`; a list of them in training.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple, instance_norm=self.instance_norm)
        features = images
        skips: list[Tensor] = []
        for stage, attention in zip(self.encoder, self.attention):
            features = stage(self.pool(features) if skips else features)
            skips.append(attention(features))
        found = [self.dilated(features)]
        found.append(self.join(torch.cat([skips[-1], found[0]], dim=1)))
        for stage, skip in zip(self.decoder, skips[-2::-1]):
            found.append(stage(torch.cat([skip, upsampled(found[-1], skip.shape[2:])], dim=1)))
        if not self.training:
            return self.heads[-1](found[-1])
        return [upsampled(head(map_), images.shape[2:]) for head, map_ in zip(self.heads, found)][::-1]


def _convolutions(before: int, widths: Sequence[int], norm: str, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        *(
            Convolution(3, i, o, dilation=dilation, adn_ordering="NA", norm=norm_layer(norm), act="relu")
            for i, o in zip([before, *widths], widths)
        )
    )

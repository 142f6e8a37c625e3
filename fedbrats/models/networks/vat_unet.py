"""3D U-Net with group norm, trained against virtual adversaries ("Reciprocal Adversarial Learning", BrainLes 2021)."""

from __future__ import annotations

import torch
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d

from fedbrats.models.blocks import norm_layer
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

LEVELS = 4  # of the encoder, before the bottleneck
DILATION = 2  # of the bottleneck


def vat_unet(
    in_channels: int = 4,
    out_channels: int = 3,
    width: int = 48,
    norm: str = "group",
    prior: float | None = 0.1,
) -> VatUNet:
    """The segmentation network of the paper, section 4.1.

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 8 and returns logits
    [batch, out_channels, X, Y, Z].

    Printed: five layers down "including bottleneck", each of two 3x3x3 convolutions with group norm and ReLU; 48
    feature maps in the first; max pooling of 2x2x2; "trilinear interpolation followed by 3x3x3 convolution" up; skips
    concatenated; 1x1x1 to three outputs with a sigmoid.

    Not printed, taken from the public release (facts, no code): each layer down doubles the width, its first
    convolution making half of it; the bottleneck, which is the fifth layer, does not pool but has convolutions of
    dilation 2 and is joined to the fourth by a convolution that halves the width; two convolutions after each
    interpolation, which aligns corners, the second making the width of the next skip, at the end half of 48.
    Convolutions before a norm have no bias, as in lescientifik/open_brats2020, which that release derives from by its
    looks. Neither says how many groups; here 8. So sides are halved three times.

    Training (conf/model/vat_unet.yaml): Dice, and 0.2 times virtual adversarial training (Eq. 2 and 4) as
    `training/vat.py` has it. Equation 4 compares the ground truth with the prediction of the disturbed image, "inspired
    by" Miyato et al., who compare two predictions; the ground truth is `train.vat.target=truth`. Size and search of
    the perturbation are not printed. In the release no gradient passes through this term or its search, as both are
    wrapped anew before they are derived, so its numbers are not taken.

    Off by default: the critic (Eq. 5), which `train.critic.weight=0.3` adds as `training/critic.py` has it; the paper
    shows no result with or without it.

    See "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        width: of the first layer, doubled at each of the next three.
        norm: batch, instance or group.
        prior: probability that every output starts with.

    Raises:
        ValueError: an odd width, one that group norm cannot divide, an unknown norm, or a bad `prior`.
    """
    if width < 2 or width % 2 or (norm == "group" and width % 16):
        raise ValueError(
            f"model.width={width}: must be even, 2 or more, and a multiple of 16 for model.norm=group, as half of it "
            "is normalised in 8 groups."
        )
    network = VatUNet(in_channels, out_channels, [width * 2**level for level in range(LEVELS)], norm)
    set_output_prior(network, out_channels, prior)
    return network


def _convolution(before: int, width: int, norm: str, dilation: int = 1) -> nn.Sequential:
    """3x3x3 from `before` to `width` channels, norm and ReLU."""
    return nn.Sequential(
        nn.Conv3d(before, width, 3, padding=dilation, dilation=dilation, bias=False),
        get_norm_layer(norm_layer(norm), spatial_dims=3, channels=width),
        nn.ReLU(),
    )


def _two(before: int, middle: int, width: int, norm: str, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _convolution(before, middle, norm, dilation), _convolution(middle, width, norm, dilation)
    )


class VatUNet(nn.Module):
    """The network behind `vat_unet`."""

    def __init__(self, in_channels: int, out_channels: int, widths: list[int], norm: str) -> None:
        """`widths` of the encoder, the shallowest first."""
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        before, deepest = [in_channels, *widths[:-1]], widths[-1]
        self.encoder = nn.ModuleList(_two(i, o // 2, o, norm) for i, o in zip(before, widths))
        self.bottleneck = _two(deepest, deepest, deepest, norm, DILATION)
        self.join = _convolution(2 * deepest, deepest // 2, norm)
        # From the deepest to the shallowest; what comes up is as wide as the skip.
        self.decoder = nn.ModuleList(_two(2 * skip, skip, skip // 2, norm) for skip in widths[-2::-1])
        self.head = nn.Conv3d(widths[0] // 2, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple)
        features, skips = images, []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else max_pool3d(features, 2))
            skips.append(features)
        features = self.join(torch.cat([features, self.bottleneck(features)], dim=1))
        for block, skip in zip(self.decoder, skips[-2::-1]):
            larger = interpolate(features, scale_factor=2, mode="trilinear", align_corners=True)
            features = block(torch.cat([skip, larger], dim=1))
        return self.head(features)

"""Cascaded 3D U-Nets with group norm and RReLU (BrainLes 2021): whole tumour, then core, then enhancing tumour."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from fedbrats.data.regions import REGIONS
from fedbrats.models.blocks import check_widths, upsampled
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

GROUP = 8  # channels that are normalised together


def cascade_unet(
    in_channels: int = 4,
    channels: Sequence[int] = (16, 32, 64, 128, 256),
    trains: Sequence[str] = REGIONS,
    prior: float | None = 0.1,
) -> CascadeUNet:
    """Three U-Nets in a row, sections 3.1 and 3.2 of "Cascaded training pipeline for 3D brain tumor segmentation".

    Takes float [batch, in_channels, X, Y, Z] with every side a multiple of 2^(len(channels) - 1), 16 by default, and
    returns logits [batch, 3, X, Y, Z] of WT, TC and ET, in the order of `REGIONS`. The second U-Net sees the images and
    the first one's segmentation, the third the images and both.

    Printed and chosen (the figure of the network is no text):

    - Depth and widths: nowhere in the text. Five levels, as 155x160x160 padded to 160 can be halved often enough, and
      widths doubling from 16: one U-Net then needs at least 5.8 GB for the printed batch of 1 (`models.facts`) on the
      printed GPU, which has 11 GB; a first width of 32 would need 11.3 GB with four levels already.
    - Block: two 3x3x3 convolutions, each with group norm and RReLU. "A group size of 8" (section 3.2) is read as it
      stands, 8 channels in a group; 8 groups may be meant.
    - RReLU: "randomly sampled from a uniform distribution", no bounds. Torch's, 1/8 to 1/3, and their mean outside
      training (Xu et al. 2015).
    - Upsampling: trilinear, then the skip joined before it, then a block. Pooling: 2x2x2.
    - What the next U-Net sees: the "segmentation", whose output has "a threshold of 0.5", so 0 or 1. No gradient passes
      a threshold, hence each U-Net learns from its own region alone ("fully independent", section 3.1).
    - Order: each U-Net was trained by itself, the ones before it frozen. By default all three train side by side, which
      is a third of the rounds; `trains` names those that do, so that three runs, the later ones with `train.init` of
      the one before, are the printed procedure. A frozen U-Net works as outside training.
    - Initialisation: not printed. PyTorch's, and `prior`.

    Training: conf/model/cascade_unet.yaml; see "What is not as printed" in models/README.md. The merge of the three
    regions to labels (Table 1) is `data.regions.labels_from_regions`, which every network of regions uses.

    Args:
        in_channels: MRI sequences.
        channels: width per level of each U-Net.
        trains: regions whose U-Nets train, one or more of `REGIONS`.
        prior: probability that every region starts with.

    Raises:
        ValueError: fewer than two levels, widths that 8 does not divide, an unknown region or none, or a bad `prior`.
    """
    check_widths(channels, 1)
    if any(width % GROUP for width in channels):
        raise ValueError(
            f"model.channels={list(channels)}: must be multiples of {GROUP}, a group of its group norm."
        )
    if not trains or set(trains) - set(REGIONS):
        raise ValueError(f"model.trains={list(trains)}: name one or more of {', '.join(REGIONS)}.")
    return CascadeUNet(in_channels, tuple(channels), tuple(trains), prior)


class RReLU(nn.RReLU):
    """torch's, with a slope drawn for every voxel and not for the negative ones alone.

    So how many numbers are drawn does not depend on the values, one sample of a batch does not shift the draws of the
    next, and `torch.func.vmap` can take it.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Negative values times a slope: in training drawn from U(lower, upper), else the mean of both."""
        if not self.training:
            return super().forward(features)
        slopes = self.lower + (self.upper - self.lower) * torch.rand_like(features)
        return torch.where(features < 0, slopes * features, features)


class UNet(nn.Module):
    """One U-Net of the cascade, with one output."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]) -> None:
        """`channels` per level."""
        super().__init__()
        skips = channels[:-1]
        self.encoder = nn.ModuleList(_block(i, o) for i, o in zip([in_channels, *skips], channels))
        # Decoder levels from the deepest to the shallowest.
        self.decoder = nn.ModuleList(
            _block(skip + deeper, skip) for skip, deeper in zip(skips[::-1], channels[:0:-1])
        )
        self.head = nn.Conv3d(channels[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, in_channels, X, Y, Z] to logits [batch, 1, X, Y, Z]."""
        features, skips = images, []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else max_pool3d(features, 2))
            skips.append(features)
        for block, skip in zip(self.decoder, skips[-2::-1]):
            features = block(torch.cat([skip, upsampled(features, skip.shape[2:])], dim=1))
        return self.head(features)


class CascadeUNet(nn.Module):
    """A U-Net per region, each of which sees what those before it have found."""

    def __init__(
        self, in_channels: int, channels: tuple[int, ...], trains: tuple[str, ...], prior: float | None
    ) -> None:
        """Arguments as in `cascade_unet`."""
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)
        self.trains = trains
        self.networks = nn.ModuleDict(
            {region: UNet(in_channels + before, channels) for before, region in enumerate(REGIONS)}
        )
        for region, network in self.networks.items():
            set_output_prior(network, 1, prior)
            network.requires_grad_(region in trains)

    def train(self, mode: bool = True) -> CascadeUNet:
        """As of every module, but what is frozen stays as it is outside training."""
        super().train(mode)
        for region, network in self.networks.items():
            network.train(mode and region in self.trains)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple)
        seen, found = images, []
        for network in self.networks.values():
            logits = network(seen)
            found.append(logits)
            seen = torch.cat([seen, (logits > 0).to(seen.dtype)], dim=1)  # 0 is a probability of 0.5
        return torch.cat(found, dim=1)


def _block(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            layer
            for i in (before, width)
            for layer in (nn.Conv3d(i, width, 3, padding=1), nn.GroupNorm(width // GROUP, width), RReLU())
        )
    )

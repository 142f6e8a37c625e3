"""HRNet in 3D, of the ensemble of nnU-Net, UNet++, CoTr and HRNet (BrainLes 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn
from torch.nn.functional import relu

from fedbrats.models.blocks import norm_layer, upsampled
from fedbrats.models.prior import set_output_prior
from fedbrats.models.sides import check_sides

EXPANSION = 4  # of the bottlenecks of the first stage
STEM = 4  # voxels that become one before the first stage
Make = Callable[..., nn.Sequential]


def hrnet3d(
    in_channels: int = 4,
    out_channels: int = 3,
    width: int = 16,
    stem: int = 32,
    modules: Sequence[int] = (1, 4, 3),
    blocks: int = 4,
    norm: str = "batch",
    prior: float | None = 0.1,
) -> HRNet3D:
    """HRNetV2 with its convolutions in 3D and "half channel" (section 2.1, footnote b of Table 4).

    Takes float32 [batch, in_channels, X, Y, Z] with every side a multiple of 4 * 2^len(modules), 32 by default, and
    returns logits [batch, out_channels, X, Y, Z].

    Printed: "a 3D version", "half channel", nothing else of the network. The rest is HRNetV2 (Wang et al., TPAMI 2021),
    which the paper cites, and its public release for segmentation (facts, no code): two strided 3x3 convolutions; four
    bottlenecks; stages of two, three and four branches, each next branch at half the side and twice the width, of 1, 4
    and 3 modules; a module is four residual blocks per branch, then every branch gets the sum of all of them, brought
    down by strided 3x3 convolutions or up by a 1x1 convolution and interpolation; at the end all branches, brought to
    the largest, a 1x1 convolution, norm, ReLU and the output, which is interpolated to the sides of the image. Counted
    in 2D that gives the 65.9 million parameters printed for HRNetV2-W48; a test counts them.

    Chosen: half of which width is not said, but that HRNet has about as many parameters as the 2D Swin-Unet (section
    2.1), 27.2 million. Of halves of released widths 16, of HRNetV2-W32, is the nearest: 21.8 million.
    Everything is halved, the stem and the bottlenecks too. BatchNorm as in the release and section 2.3.

    Training: conf/model/hrnet3d.yaml; see "What is not as printed" in models/README.md.

    Args:
        in_channels: MRI sequences.
        out_channels: see `tasks.segmentation`.
        width: of the branch with the largest sides, doubled per branch.
        stem: width of the first convolutions and inside the bottlenecks.
        modules: in the stages of two, three, ... branches.
        blocks: residual blocks per branch of a module, and bottlenecks.
        norm: batch, instance or group.
        prior: probability that every output starts with.

    Raises:
        ValueError: settings that make no network, an unknown norm, or a bad `prior`.
    """
    if not modules or min(modules) < 1 or blocks < 1:
        raise ValueError(
            f"model.modules={list(modules)}, model.blocks={blocks}: a stage or more, 1 or more of each."
        )
    if width < 1 or stem < 1 or (norm == "group" and (width % 8 or stem % 8)):
        raise ValueError(
            f"model.width={width}, model.stem={stem}: 1 or more, multiples of 8 for model.norm=group."
        )
    make = partial(_convolution, norm=norm)
    network = HRNet3D(in_channels, out_channels, width, stem, tuple(modules), blocks, make)
    set_output_prior(network, out_channels, prior)
    return network


def _convolution(
    before: int,
    width: int,
    kernel: int = 3,
    stride: int = 1,
    active: bool = True,
    bias: bool = False,
    *,
    norm: str,
) -> nn.Sequential:
    """A convolution, its norm and, if `active`, a ReLU."""
    convolution = nn.Conv3d(before, width, kernel, stride=stride, padding=kernel // 2, bias=bias)
    normed = get_norm_layer(norm_layer(norm), spatial_dims=3, channels=width)
    return nn.Sequential(convolution, normed, *([nn.ReLU()] if active else []))


class Residual(nn.Module):
    """Convolutions and a way round them, a 1x1x1 convolution where the widths differ; ReLU of the sum."""

    def __init__(self, body: nn.Sequential, before: int, width: int, make: Make) -> None:
        """`body` makes `width` channels of `before`."""
        super().__init__()
        self.body = body
        self.way = nn.Identity() if before == width else make(before, width, 1, active=False)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, before, X, Y, Z] to [batch, width, X, Y, Z]."""
        return relu(self.body(features) + self.way(features))


def _basic(width: int, make: Make) -> Residual:
    return Residual(nn.Sequential(make(width, width), make(width, width, active=False)), width, width, make)


def _bottleneck(before: int, width: int, make: Make) -> Residual:
    body = nn.Sequential(
        make(before, width, 1), make(width, width), make(width, EXPANSION * width, 1, active=False)
    )
    return Residual(body, before, EXPANSION * width, make)


class Exchange(nn.Module):
    """A module: residual blocks on every branch, then every branch gets the sum of all."""

    def __init__(self, widths: Sequence[int], blocks: int, make: Make) -> None:
        """`widths` of the branches, the largest sides first."""
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(_basic(w, make) for _ in range(blocks))) for w in widths
        )
        self.ways = nn.ModuleList(
            nn.ModuleList(_way(widths, source, target, make) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """One tensor per branch, same shapes out."""
        features = [branch(one) for branch, one in zip(self.branches, features)]
        mixed = []
        for target, ways in zip(features, self.ways):
            parts = [upsampled(way(one), target.shape[2:]) for way, one in zip(ways.children(), features)]
            mixed.append(relu(torch.stack(parts).sum(0)))
        return mixed


def _way(widths: Sequence[int], source: int, target: int, make: Make) -> nn.Module:
    """From a branch to another: down by strides, the width changing last, or across by a 1x1x1 convolution."""
    if source == target:
        return nn.Identity()
    if source > target:
        return make(widths[source], widths[target], 1, active=False)
    steps = [make(widths[source], widths[source], stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, make(widths[source], widths[target], stride=2, active=False))


class HRNet3D(nn.Module):
    """The network behind `hrnet3d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        stem: int,
        modules: tuple[int, ...],
        blocks: int,
        make: Make,
    ) -> None:
        """Arguments as in `hrnet3d`; `make` as in `_convolution`."""
        super().__init__()
        self.multiple = STEM * 2 ** len(modules)
        first, wide = [_bottleneck(stem, stem, make)], EXPANSION * stem
        first += [_bottleneck(wide, stem, make) for _ in range(blocks - 1)]
        self.stem = nn.Sequential(make(in_channels, stem, stride=2), make(stem, stem, stride=2), *first)
        widths = [width * 2**branch for branch in range(len(modules) + 1)]
        # A stage begins with a branch more; the first one changes the width of its first branch, too.
        self.widen = make(wide, width)
        self.begin = nn.ModuleList(
            make(wide if index == 0 else widths[index], widths[index + 1], stride=2)
            for index in range(len(modules))
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Exchange(widths[: index + 2], blocks, make) for _ in range(count)))
            for index, count in enumerate(modules)
        )
        self.last = make(sum(widths), sum(widths), 1, bias=True)
        self.head = nn.Conv3d(sum(widths), out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`.

        Raises:
            ValueError: sides that the network cannot halve often enough.
        """
        check_sides(images, self.multiple)
        features = self.stem(images)
        branches, smallest = [self.widen(features)], features
        for begin, stage in zip(self.begin, self.stages):
            branches = stage([*branches, begin(smallest)])
            smallest = branches[-1]
        sides = branches[0].shape[2:]
        joined = torch.cat([upsampled(one, sides) for one in branches], dim=1)
        return upsampled(self.head(self.last(joined)), images.shape[2:])

"""nnU-Net's rules from a fingerprint to a network (Isensee et al., Nature Methods 2021, supplementary note 2).

Where the article leaves something open, nnU-Net's own planner of version 2 decides (`nnunetv2` 2.8.1,
`experiment_planning`); for the same spacing and shape the two give the same plan (tests/models/test_planning.py). Of
its configurations the 3D one at full resolution is planned here.

Not as there:

- Cases are not resampled to the target spacing, so the shape is that of the voxels as they are; `Plan.reasons` says how
  many patients have another spacing.
- nnU-Net z-scores over the brain where cropping to it takes away more than a quarter of a volume, else over the whole
  crop; here always over the brain, and the reasons say where nnU-Net would not.
- All sequences are MRI: the percentiles, mean and deviation that nnU-Net takes of CT are not asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedbrats.data.fingerprint import THIN, Fingerprint

LEAST_EDGE = 4  # voxels of a feature map along an axis, below which nothing is halved
THICK = 3.0  # times the other spacings, from which an axis is anisotropic
LARGEST_PATCH = 256**3  # voxels that the search begins with
ELEMENTS_PER_GB = 560_000_000 / 8  # of all feature maps of one patch, at a batch of two
LEAST_BATCH = 2
MOST_OF_DATA = 0.05  # of all voxels of the data set in one batch
MASKED = 0.75  # share of the volume in the box, below which nnU-Net normalises within the brain
LOW_RESOLUTION = 0.25  # share of the median image in a patch, below which nnU-Net adds a cascade
SMALLEST_SIDE = 8  # of a patch here
Axes = tuple[int, ...]


@dataclass(frozen=True)
class Planner:
    """What of a network the rules do not decide.

    memory: GB that nnU-Net would reckon with for a training step; it counts feature maps, for what its own network of
    32 channels takes. first, most: channels of the first level and at most. convolutions: per level. labels: that
    nnU-Net would have, background among them.
    """

    memory: float = 8.0
    first: int = 32
    most: int = 320
    convolutions: int = 2
    labels: int = 4


@dataclass(frozen=True)
class Topology:
    """Strides and kernel sizes of every level, from the first to the deepest, and the patch padded to them."""

    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]
    patch: Axes

    @property
    def multiple(self) -> Axes:
        """What a side of a patch is a multiple of, by axis."""
        return tuple(math.prod(strides) for strides in zip(*self.strides))


@dataclass(frozen=True)
class Plan:
    """A network and its patches; sides, strides and kernels along x, y and z.

    spacing: that was aimed at, mm. elements: of the feature maps of one patch.
    """

    spacing: tuple[float, ...]
    patch: Axes
    batch: int
    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]
    channels: Axes
    elements: int
    reasons: tuple[str, ...]


def target_spacing(found: Fingerprint) -> tuple[float, ...]:
    """The median; along an axis much thicker and with far fewer voxels than the others, the 10th percentile.

    That is never below the largest of the other two.
    """
    target = list(found.spacing)
    thick = max((2, 1, 0), key=lambda axis: target[axis])
    others = [axis for axis in range(3) if axis != thick]
    widest = max(target[axis] for axis in others)
    shortest = min(found.shape[axis] for axis in others)
    if target[thick] > THICK * widest and THICK * found.shape[thick] < shortest:
        target[thick] = found.thin[thick] if found.thin[thick] >= widest else widest + 1e-5
    return tuple(target)


def topology(spacing: Sequence[float], patch: Sequence[float]) -> Topology:
    """How often each axis is halved, and with which kernels.

    A level halves every axis that is less than twice as coarse as the finest of those that can be halved, which are
    those with at least twice `LEAST_EDGE` voxels; a single one needs three times that. Kernels are 1 along an axis
    until it is less than twice as coarse as the finest, then 3; 3 along all at the deepest level.
    """
    axes, size, coarse = range(len(patch)), list(patch), list(spacing)
    strides, kernels, kernel = [tuple(1 for _ in axes)], list[Axes](), tuple(1 for _ in axes)
    while True:
        long = [axis for axis in axes if size[axis] >= 2 * LEAST_EDGE]
        finest = min((coarse[axis] for axis in long), default=0.0)
        halved = [axis for axis in long if coarse[axis] / finest < 2]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * LEAST_EDGE):
            break
        near = [coarse[axis] / min(coarse) < 2 for axis in axes]
        kernel = tuple(3 if kernel[axis] == 3 or near[axis] else 1 for axis in axes)
        kernels.append(kernel)
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            size[axis], coarse[axis] = math.ceil(size[axis] / 2), 2 * coarse[axis]
    multiple = [math.prod(of) for of in zip(*strides)]
    padded = tuple(math.ceil(side / m) * m for side, m in zip(patch, multiple))
    return Topology(tuple(strides), (*kernels, tuple(3 for _ in axes)), padded)


def channels_of(levels: int, planner: Planner) -> Axes:
    """Channels of every level: doubled from one to the next, up to the most."""
    return tuple(min(planner.most, planner.first * 2**level) for level in range(levels))


def feature_elements(of: Topology, planner: Planner) -> int:
    """Elements of the outputs of all convolutions for one patch, as nnU-Net counts them for its memory.

    Per level those of its convolutions, in the decoder those of the transposed convolution, too; of the heads the one
    at full resolution alone.
    """
    total, sides = 0, list(of.patch)
    deepest = len(of.strides) - 1
    for level, (strides, width) in enumerate(
        zip(of.strides, channels_of(len(of.strides), planner), strict=True)
    ):
        sides = [side // stride for side, stride in zip(sides, strides)]
        per_voxel = planner.convolutions * width
        if level < deepest:
            per_voxel += planner.convolutions * width + width + planner.labels * (level == 0)
        total += per_voxel * math.prod(sides)
    return total


def plan(found: Fingerprint, planner: Planner) -> Plan:
    """The plan for what is known of the patients.

    Raises:
        ValueError: no patch of `SMALLEST_SIDE` or more voxels along every axis fits the memory.
    """
    spacing = target_spacing(found)
    thick = max((2, 1, 0), key=lambda axis: spacing[axis])
    order = [thick, *(axis for axis in (2, 1, 0) if axis != thick)]  # nnU-Net's: decides between equals
    shape = [found.shape[axis] for axis in order]
    chosen = _fitted([spacing[axis] for axis in order], shape, planner)
    elements = feature_elements(chosen, planner)
    fits = round(ELEMENTS_PER_GB * planner.memory / elements * LEAST_BATCH)
    few = round(math.prod(shape) * found.patients * MOST_OF_DATA / math.prod(chosen.patch))
    made = Plan(
        spacing=spacing,
        patch=_back(chosen.patch, order),
        batch=max(min(fits, few), LEAST_BATCH),
        strides=tuple(_back(strides, order) for strides in chosen.strides),
        kernels=tuple(_back(kernel, order) for kernel in chosen.kernels),
        channels=channels_of(len(chosen.strides), planner),
        elements=elements,
        reasons=(),
    )
    return Plan(**{**vars(made), "reasons": reasons(made, found, planner, few < fits)})


def _fitted(spacing: list[float], shape: list[int], planner: Planner) -> Topology:
    """The largest patch that fits the memory.

    Of the aspect of the voxels and no larger than the median image; while it is too large, the axis that is the longest
    beside the median image gets shorter by one step of its own halvings.
    """
    volume = math.prod(1 / s for s in spacing)
    edges = [round(1 / s * (LARGEST_PATCH / volume) ** (1 / 3)) for s in spacing]
    found = topology(spacing, [min(edge, side) for edge, side in zip(edges, shape)])
    while feature_elements(found, planner) > ELEMENTS_PER_GB * planner.memory:
        axis = max(range(3), key=lambda a: (found.patch[a] / shape[a], a))
        less = [side - found.multiple[a] * (a == axis) for a, side in enumerate(found.patch)]
        step = topology(spacing, less).multiple[
            axis
        ]  # a shorter axis is halved less often, so its steps are finer
        left = [side - step * (a == axis) for a, side in enumerate(found.patch)]
        if min(left) < SMALLEST_SIDE:
            raise ValueError(
                f"no patch of {SMALLEST_SIDE} or more voxels along every axis fits {planner.memory:g} GB"
            )
        found = topology(spacing, left)
    return found


def _back(values: Sequence[int], order: Sequence[int]) -> Axes:
    """From nnU-Net's order of the axes to x, y, z."""
    return tuple(value for _, value in sorted(zip(order, values)))


def reasons(made: Plan, found: Fingerprint, planner: Planner, few: bool) -> tuple[str, ...]:
    """Why the plan is as it is, a sentence each."""
    image = math.prod(found.shape)
    often = [sum(strides[axis] == 2 for strides in made.strides) for axis in range(3)]
    flat = sum(1 in kernel for kernel in made.kernels)
    said = [
        f"{found.patients} patients: median spacing {_by(found.spacing)} mm, median brain {_by(found.shape)} voxels",
        f"patch {_by(made.patch)}: the largest whose feature maps fit {planner.memory:g} GB as nnU-Net counts them "
        f"({made.elements / 1e6:.0f} million values, {ELEMENTS_PER_GB * planner.memory / 1e6:.0f} fit), "
        f"{math.prod(made.patch) / image:.0%} of the median brain",
        f"{len(made.channels)} levels of {', '.join(map(str, made.channels))} channels: x, y and z are halved "
        f"{', '.join(map(str, often))} times, down to {LEAST_EDGE} voxels or a little more",
        f"kernels of 3 voxels{f', but 1 along the thick axis in the first {flat} levels' if flat else ' everywhere'}",
        f"batch {made.batch}: "
        + (
            f"no more than {MOST_OF_DATA:.0%} of all voxels in one step, and no fewer than {LEAST_BATCH} patches"
            if few
            else "as many as fit"
        ),
        f"z-scores within the brain: its box is about {found.box:.0%} of a volume, "
        + (
            f"less than {MASKED:.0%}"
            if found.box < MASKED
            else "so nnU-Net would z-score over the whole box; here the background stays 0"
        ),
    ]
    if made.spacing != found.spacing:
        said.append(
            f"target spacing {_by(made.spacing)} mm: the {THIN}th percentile along the thick axis, or the spacing "
            "of the others"
        )
    if found.alike < 1:
        said.append(
            f"{1 - found.alike:.0%} of the patients have another spacing than the median; nnU-Net would resample them, "
            "here they stay as they are"
        )
    if math.prod(made.patch) / image < LOW_RESOLUTION:
        said.append(
            "a patch sees less than a quarter of the brain: nnU-Net would try a cascade, which is not planned here"
        )
    return tuple(said)


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)

"""An affine map of a patch and its labels, in one interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from monai.transforms import Affine
from torch import Tensor


def moved(
    image: Tensor,
    label: Tensor,
    *,
    angles: Sequence[float],
    shift: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """`image` float32 [C, *S] (linear) and `label` uint8 [*S] (nearest), turned, shifted and scaled about the middle.

    What lies outside the brain mask (any modality not 0), which moves with the labels, is set to 0.

    Args:
        image: what is moved.
        label: what moves with it.
        angles: in radians: one in 2D, one about each axis in 3D.
        shift: in voxels, of where is read; None is nowhere.
        scale: of the distances at which is read, so a factor below 1 enlarges; None is 1.
    """
    both = torch.stack([label, (image != 0).any(0).to(label.dtype)])
    move = partial(
        Affine,
        rotate_params=list(angles),
        translate_params=None if shift is None else list(shift),
        scale_params=None if scale is None else list(scale),
        padding_mode="zeros",
        image_only=True,
    )
    image = move(mode="bilinear")(image)
    both = move(mode="nearest")(both.float()).to(label.dtype)
    return image.masked_fill(both[1] == 0, 0), both[0]


def about_the_third_axis(angle: float, axes: int) -> list[float]:
    """The `angles` of a rotation within the slice, in so many dimensions."""
    return [angle] if axes == 2 else [0.0, 0.0, angle]

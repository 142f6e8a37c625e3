"""An affine map of a patch and what moves with it, in one interpolation, which several recipes share."""

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
    image, both = _mapped(image, both, angles, shift, scale)
    return image.masked_fill(both[1] == 0, 0), both[0]


def rotated_and_zoomed(
    image: Tensor, labels: Tensor, angles: Sequence[float] | None, zoom: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`image` float32 [C, *S] (linear) and `labels` [L, *S] of integers (nearest), turned and enlarged.

    Both about the middle. What comes in from outside is 0.

    Args:
        image: what is moved.
        labels: what moves with it.
        angles: as in `moved`; None turns nothing.
        zoom: above 1 enlarges.
    """
    return _mapped(image, labels, angles, None, [1 / zoom] * (image.ndim - 1))  # of where is read


def _mapped(
    image: Tensor,
    labels: Tensor,
    angles: Sequence[float] | None,
    shift: Sequence[float] | None,
    scale: Sequence[float] | None,
) -> tuple[Tensor, Tensor]:
    move = partial(
        Affine,
        rotate_params=None if angles is None else list(angles),
        translate_params=None if shift is None else list(shift),
        scale_params=None if scale is None else list(scale),
        padding_mode="zeros",
        image_only=True,
    )
    return move(mode="bilinear")(image), move(mode="nearest")(labels.float()).to(labels.dtype)


def about_the_third_axis(angle: float, axes: int) -> list[float]:
    """The `angles` of a rotation within the slice, in so many dimensions."""
    return [angle] if axes == 2 else [0.0, 0.0, angle]

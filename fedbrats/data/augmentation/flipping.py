"""Mirroring a patch and its labels together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.transforms import RandFlip
from torch import Tensor


def flips_of(probability: float, axes: int, state: np.random.RandomState) -> list[RandFlip]:
    """A flip with this probability along each of so many axes, drawn from `state`."""
    return [RandFlip(probability, spatial_axis=axis).set_random_state(state=state) for axis in range(axes)]


def flipped(flips: Sequence[RandFlip], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """`image` [channel, *S] flipped as each of `flips` draws, and `label` [channel, *S] just as it."""
    for flip in flips:
        image = flip(image)
        label = flip(label, randomize=False)  # as the image was
    return image, label

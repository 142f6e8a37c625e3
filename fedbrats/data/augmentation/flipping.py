"""Mirroring a patch and its labels together."""

from __future__ import annotations

from collections.abc import Sequence

from monai.transforms import RandFlip
from torch import Tensor


def flipped(flips: Sequence[RandFlip], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """`image` [channel, *S] flipped as each of `flips` draws, and `label` [channel, *S] just as it."""
    for flip in flips:
        image = flip(image)
        label = flip(label, randomize=False)  # as the image was
    return image, label

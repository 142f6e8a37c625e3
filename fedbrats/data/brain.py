"""Where the brain is: in skull-stripped images it is what is not 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

LEAST_BACKGROUND = (
    0.1  # of the volume; BraTS has 0.8 to 0.9, an image with its skull and noise in the air next to none
)


def background_share(volumes: Sequence[np.ndarray]) -> float:
    """Share of the voxels that are exactly 0 in every one of `volumes`, which have one shape."""
    filled = np.zeros(volumes[0].shape, bool)
    for volume in volumes:
        filled |= volume != 0
    return 1 - np.count_nonzero(filled) / filled.size


def is_stripped(background: float) -> bool:
    """Whether an image of which so much of the whole volume is exactly 0 is taken for skull-stripped."""
    return background >= LEAST_BACKGROUND


def brain_mask(image: np.ndarray) -> np.ndarray:
    """Where the brain of a skull-stripped `image` [C, X, Y, Z] is, bool [X, Y, Z].

    It is what is not 0 in some modality, and what that encloses.
    """
    return np.asarray(ndimage.binary_fill_holes(np.any(image != 0, axis=0)))

"""Flips, a rotation and a random crop brought back to size."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of
from fedbrats.data.augmentation.moving import about_the_third_axis, moved

FLIP = 0.5  # probability, for each axis on its own
ANGLE, CROP = 15, 0.8  # largest angle in degrees, least share of each side
TURN = 0.2 * 360  # largest angle of the recipe rotations
TILT = 7  # and of the recipe tilts


def moves(
    images: Tensor,
    labels: Tensor,
    state: np.random.RandomState,
    *,
    limit: float = ANGLE,
    least: float = CROP,
) -> tuple[Tensor, Tensor]:
    """The recipe moves (COTRNet, BrainLes 2021, section 3; MSFR-Net, BrainLes 2021, section 3.3), 2D and 3D.

    Printed: "random flip, random rotation, random crop", no number. Chosen: every sample is turned by U(-ANGLE, ANGLE)
    about its middle (about the z axis in 3D), and a part of it, U(CROP, 1) of each side, placed anywhere inside, is
    brought back to size, in one interpolation (linear, labels nearest). What lies outside the brain mask (any modality
    not 0), which moves with the labels, is set to 0.

    The recipe rotations has no crop and turns by up to `TURN`: "random flip images and random rotation with an index of
    0.2" (3D/Multiscale EfficientNet, BrainLes 2021, section 4.2), read as Keras's factor, a share of the full turn. The
    recipe tilts has no crop either and turns by up to `TILT` (non-local Mask R-CNN, BrainLes 2021, section 3). The
    recipe crops has no rotation: "random crop and flip" (CA-Net, BrainLes 2021, section 3.1).

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from; each sample has draws of its own.
        limit: largest angle in degrees.
        least: share of each side.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    flips = flips_of(FLIP, labels.ndim - 1, state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        image, label = flipped(flips, images[index], labels[index][None])
        sides, share = image.shape[1:], state.uniform(least, 1)
        angle = math.radians(state.uniform(-limit, limit))
        room = [(1 - share) / 2 * (side - 1) for side in sides]
        new_images[index], new_labels[index] = moved(
            image,
            label[0],
            angles=about_the_third_axis(angle, len(sides)),
            shift=[state.uniform(-free, free) for free in room],
            scale=[share] * len(sides),
        )
    return new_images, new_labels

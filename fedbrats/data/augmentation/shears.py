"""Flips, rotation, scaling, shearing and brightness."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.transforms import Affine
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of

FLIP = 0.5  # probability, for each axis on its own
ANGLE = 15  # largest, in degrees, about each axis
ZOOM, SHEAR, BRIGHTNESS = 0.1, 0.1, 0.1  # largest change


def shears(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe shears, that of the late fusion of EfficientNets (BrainLes 2021), section 3.2.

    Printed: random scaling, rotation, flipping, shearing and brightness adjustment, no number. Chosen: each sample is
    rotated by U(-15, 15) degrees about every axis, scaled by U(0.9, 1.1), the same along all axes, and sheared by
    U(-0.1, 0.1) between every two, in one interpolation (linear, labels nearest) about the middle; the intensities of
    each modality are multiplied by U(0.9, 1.1). The correction of bias fields that the paper counts as augmentation is
    left out. What lies outside the brain mask (any modality not 0), which moves with the labels, is set to 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: the only source of randomness; each sample has draws of its own.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    axes = labels.ndim - 1
    flips, turn = flips_of(FLIP, axes, state), math.radians(ANGLE)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        both = torch.stack([labels[index], (images[index] != 0).any(0).to(labels.dtype)])
        image, both = flipped(flips, images[index], both)
        drawn = {
            "rotate_params": state.uniform(-turn, turn, 3 if axes == 3 else 1).tolist(),
            "scale_params": [1 / state.uniform(1 - ZOOM, 1 + ZOOM)] * axes,  # of what is read
            "shear_params": state.uniform(-SHEAR, SHEAR, 6 if axes == 3 else 2).tolist(),
        }
        image = Affine(**drawn, padding_mode="zeros", image_only=True, mode="bilinear")(image)
        both = Affine(**drawn, padding_mode="zeros", image_only=True, mode="nearest")(both.float())
        light = state.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS, len(image))
        image = image * torch.from_numpy(light).to(image).reshape(-1, *[1] * axes)
        both = both.to(labels.dtype)
        new_images[index], new_labels[index] = image.masked_fill(both[1] == 0, 0), both[0]
    return new_images, new_labels

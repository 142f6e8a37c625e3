"""Flips and a rotation in the axial plane, and a little Gaussian noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.transforms import Affine
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of

FLIP = 0.5  # probability, for X and Y each on its own
ANGLE = 30  # largest, in degrees
NOISE = 0.01  # standard deviation


def rotation(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe rotation, that of SPiN (BrainLes 2021), section 4; for axial slices, 2D, or volumes of them.

    Printed: "(i) horizontal and vertical flips, (ii) rotation between -30 and 30 degrees, and (iii) add zero-mean
    Gaussian noise with standard deviation of 1e-2". Chosen: flips with probability 0.5, a rotation by U(-30, 30) about
    the middle (about the z axis in 3D) for every sample, linear, labels nearest. What lies outside the brain mask (any
    modality not 0), which moves with the labels, is set to 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from; each sample has draws of its own.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    flips = flips_of(FLIP, 2, state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        both = torch.stack([labels[index], (images[index] != 0).any(0).to(labels.dtype)])
        image, both = flipped(flips, images[index], both)
        angle = math.radians(state.uniform(-ANGLE, ANGLE))
        turn = [angle] if image.ndim == 3 else [0.0, 0.0, angle]
        image, turned = (
            Affine(rotate_params=turn, padding_mode="zeros", image_only=True, mode=mode)(one)
            for one, mode in ((image, "bilinear"), (both.float(), "nearest"))
        )
        both = turned.to(labels.dtype)
        image = image + torch.from_numpy(state.normal(0, NOISE, image.shape)).to(image)
        new_images[index], new_labels[index] = image.masked_fill(both[1] == 0, 0), both[0]
    return new_images, new_labels

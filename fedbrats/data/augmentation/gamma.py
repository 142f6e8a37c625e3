"""Flips, a rotation of up to 30 degrees and gamma."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.transforms import AdjustContrast
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of
from fedbrats.data.augmentation.moving import rotated_and_zoomed

FLIP, ROTATE, POWER = 0.5, 0.5, 0.5  # probabilities
ANGLE = 30  # largest, in degrees
GAMMA = (0.7, 1.5)


def gamma(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe gamma, that of DeepSeg (BrainLes 2021), section 3.1.

    Printed: "random rotation between 0 and 30°, random 3D flipping, power-law gamma intensity transformation, or a
    combination of them". Not printed: probabilities, the axis, the range of gamma.

    Chosen: each axis is mirrored with probability 0.5; with probability 0.5 the sample is turned by U(0, 30) degrees
    about one of its axes, each as likely (in 2D about the middle); with probability 0.5 every modality has a gamma of
    its own, U(0.7, 1.5), over its own range (MONAI's AdjustContrast). What lies outside the brain mask (any modality
    not 0), which moves with the labels, is set to 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: canonical uint8 [B, *S].
        state: the only source of randomness.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    flips = flips_of(FLIP, labels.ndim - 1, state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        both = torch.stack([labels[index], (images[index] != 0).any(0).to(labels.dtype)])
        image, both = flipped(flips, images[index], both)
        if state.uniform() < ROTATE:
            angles = [0.0] * (3 if labels.ndim == 4 else 1)
            angles[state.randint(len(angles))] = math.radians(state.uniform(0, ANGLE))
            image, both = rotated_and_zoomed(image, both, angles)
        if state.uniform() < POWER:
            image = torch.cat([AdjustContrast(state.uniform(*GAMMA))(one) for one in image.split(1)])
        new_images[index], new_labels[index] = image.masked_fill(both[1] == 0, 0), both[0]
    return new_images, new_labels

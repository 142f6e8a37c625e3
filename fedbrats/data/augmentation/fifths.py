"""Zoom, rotation, more contrast and mirroring, each in a fifth of the samples."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.transforms import ScaleIntensityFixedMean
from torch import Tensor

from fedbrats.data.augmentation.moving import rotated_and_zoomed

CHANCE = 0.2  # of each change
ZOOM, ANGLE, CONTRAST = (0.7, 1.4), 30, (1.0, 1.5)  # angle in degrees


def fifths(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe fifths, that of the ensemble of nnU-Net, UNet++, CoTr and HRNet (BrainLes 2021), section 2.2.

    Printed: "Each data has a 20% chance of being scaled, rotated, increased in contrast or mirrored, where the
    probability is randomized and independent of each other". Not printed: by how much, and along which axes.

    Chosen, with nnU-Net's ranges, from which the paper starts: scaled by U(0.7, 1.4); rotated by U(-30, 30) degrees
    about each axis; the contrast of every modality times U(1, 1.5) about its mean, its range kept; mirrored along one
    axis, each as likely. "The probability is randomized" is read as: every change is drawn for itself. What lies
    outside the brain mask (any modality not 0), which moves with the labels, is set to 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: canonical uint8 [B, *S].
        state: the only source of randomness.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    sides = labels.ndim - 1
    for index in range(len(images)):
        image = images[index]
        both = torch.stack([labels[index], (image != 0).any(0).to(labels.dtype)])
        scale, rotate, contrast, mirror = state.uniform(size=4) < CHANCE
        zoom = state.uniform(*ZOOM) if scale else 1.0
        limit = math.radians(ANGLE)
        angles = state.uniform(-limit, limit, size=3 if sides == 3 else 1).tolist() if rotate else None
        if scale or rotate:
            image, both = rotated_and_zoomed(image, both, angles, zoom)
        if contrast:
            image = torch.cat([_contrast(one, state.uniform(*CONTRAST)) for one in image.split(1)])
        if mirror:
            axis = 1 + state.randint(sides)
            image, both = image.flip(axis), both.flip(axis)
        new_images[index], new_labels[index] = image.masked_fill(both[1] == 0, 0), both[0]
    return new_images, new_labels


def _contrast(modality: Tensor, factor: float) -> Tensor:
    return ScaleIntensityFixedMean(factor - 1, preserve_range=True)(modality)

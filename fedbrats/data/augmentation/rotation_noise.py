"""Flips, a rotation, and Gaussian or Poisson noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of
from fedbrats.data.augmentation.moving import about_the_third_axis, moved

FLIP, NOISE = 0.5, 0.5  # probabilities; of a flip for each axis on its own
ANGLE = 15  # largest, in degrees
DEVIATION = 0.2  # of the noise, in standard deviations of the image


def rotation_noise(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe rotation_noise, that of the multi-plane UNet++ (BrainLes 2021), section 2.2.

    Printed: "flipping, rotations, as well as Gaussian or Poisson noise (with mu = 0, sigma = 0.2 for both)". A Poisson
    variable has the mean and the variance lambda, so it cannot have these; here it is (k - 1) times 0.2 with
    lambda = 1, which has both. Chosen: every sample is turned by U(-ANGLE, ANGLE) about its middle (about the z axis in
    3D), half of them get noise, Gaussian or Poisson, each as likely. Background stays 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from; each sample has draws of its own.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    flips = flips_of(FLIP, labels.ndim - 1, state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        image, label = flipped(flips, images[index], labels[index][None])
        angle = math.radians(state.uniform(-ANGLE, ANGLE))
        image, label = moved(image, label[0], angles=about_the_third_axis(angle, label.ndim - 1))
        if state.uniform() < NOISE:
            gaussian = state.uniform() < 0.5
            drawn = state.normal(size=image.shape) if gaussian else state.poisson(1.0, image.shape) - 1
            image = (image + DEVIATION * torch.from_numpy(drawn).to(image)).masked_fill(image == 0, 0)
        new_images[index], new_labels[index] = image, label
    return new_images, new_labels

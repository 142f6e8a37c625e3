"""Flips, quarter turns and noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of

FLIP = 0.5  # probability
NOISE = 5 / (255 / 8)  # standard deviation of the noise, in that of the image


def quarters(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe quarters, that of C3D for MGMT (BrainLes 2021), section 2.2.

    Printed: "flipping on the sagittal and coronal plane, rotation by a multiple of 90 degrees and addition of gaussian
    noise with standard deviation of 5 and zero mean", where an image has the standard deviation 255/8 (Equation 1).

    Chosen: X and Y are mirrored, each with probability 0.5, and turned in their plane by none to three quarter turns,
    each as likely; where X and Y have unequal sides only the half turn fits. Every image of the brain gets noise, and
    the background stays 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: the only source of randomness.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    flips, square = flips_of(FLIP, 2, state), labels.shape[1] == labels.shape[2]
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        image, label = flipped(flips, images[index], labels[index][None])
        turns = state.randint(4) if square else 2 * state.randint(2)
        image, label = (torch.rot90(one, turns, (1, 2)) for one in (image, label))
        noise = torch.from_numpy(state.normal(0, NOISE, tuple(image.shape))).to(image)
        new_images[index], new_labels[index] = (image + noise).masked_fill(image == 0, 0), label[0]
    return new_images, new_labels

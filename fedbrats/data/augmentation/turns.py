"""Flips, quarter turns and contrast."""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import AdjustContrast
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of

FLIP, TURN, CONTRAST = 0.4, 0.4, 0.5  # probabilities
GAMMA = (0.7, 1.5)


def turns(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe turns, that of the 3D CMM-Net (BrainLes 2021), section 2.1.

    Printed: flips "with a probability of 0.4", rotations "multiple times in the x-y axis with a probability of 0.4
    between 90 and 270 degrees", contrast, "a kind of gamma correction, with a probability of 0.5".

    Chosen: each axis is mirrored on its own. A rotation is by one, two or three quarter turns, each as likely, which
    moves voxels onto voxels; where X and Y have unequal sides only the half turn fits, so it is always that. gamma, of
    which nothing is printed, is drawn from U(0.7, 1.5) for each modality, over its own range (MONAI's AdjustContrast);
    background stays 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: canonical uint8 [B, *S].
        state: the only source of randomness.

    Returns:
        New tensors of the same shapes.
    """
    flips = flips_of(FLIP, labels.ndim - 1, state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    square = labels.shape[1] == labels.shape[2]
    for index in range(len(images)):
        image, label = flipped(flips, images[index], labels[index][None])
        if state.uniform() < TURN:
            quarters = state.randint(1, 4) if square else 2
            image, label = (torch.rot90(one, quarters, (1, 2)) for one in (image, label))
        if state.uniform() < CONTRAST:
            changed = torch.cat(
                [AdjustContrast(state.uniform(*GAMMA))(channel) for channel in image.split(1)]
            )
            image = changed.masked_fill(image == 0, 0)
        new_images[index], new_labels[index] = image, label[0]
    return new_images, new_labels

"""Positive mining: now and then a patch of nothing but its tumour."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of

DROPOUT, RESCALING, FLIP, MINING = 0.2, 0.5, 0.3, 0.1  # probabilities
FACTORS = (0.9, 1.1)  # of the intensities
SIZES = (0.9, 1.1)  # smallest and largest of the mask, over that of the tumour


def mining(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe mining, that of the deeply supervised attention U-Net (BrainLes 2021), sections 2.5 and 2.6.

    Printed: "Dropout with a Probability of 0.2", "Rescaling by 1.1 or 0.9 with a Probability of 0.5", "Random flipping
    along chosen axis with a Probability of 0.3", "Positive Mining with a Probability of 0.1", which multiplies the
    image by the mask of its tumour, "randomly" resized by 0.9 to 1.1; "the actual image label is left unchanged".

    Chosen: dropout sets one of the modalities, each as likely, to 0; rescaling multiplies the intensities of each
    modality by 0.9 or by 1.1, each as likely; each axis is mirrored on its own. The mask is resized about the middle of
    its bounding box, so that it stays on the tumour, by nearest neighbour. A patch without tumour is left as it is, as
    nothing of it would remain.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: canonical uint8 [B, *S].
        state: the only source of randomness.

    Returns:
        New tensors of the same shapes.
    """
    flips = flips_of(FLIP, labels.ndim - 1, state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        image, label = images[index].clone(), labels[index][None]
        if state.uniform() < DROPOUT:
            image[state.randint(len(image))] = 0
        if state.uniform() < RESCALING:
            factors = torch.from_numpy(state.choice(FACTORS, len(image))).to(image)
            image *= factors.reshape(-1, *[1] * (labels.ndim - 1))
        image, label = flipped(flips, image, label)
        if state.uniform() < MINING and label.any():
            image = image * resized(label[0] != 0, state.uniform(*SIZES))
        new_images[index], new_labels[index] = image, label[0]
    return new_images, new_labels


def resized(mask: Tensor, factor: float) -> Tensor:
    """Bool mask [*S], not empty, `factor` times as large about the middle of its bounding box; nearest neighbour."""
    found = mask.nonzero()
    middle = (found.amin(0) + found.amax(0)) / 2
    for axis, side in enumerate(mask.shape):
        # Where along the axis the value of each place comes from; from outside the patch comes no tumour.
        source = (
            (middle[axis] + (torch.arange(side, device=mask.device) - middle[axis]) / factor).round().long()
        )
        inside = (source >= 0) & (source < side)
        mask = mask.index_select(axis, source.clamp(0, side - 1)).movedim(axis, -1) & inside
        mask = mask.movedim(-1, axis)
    return mask

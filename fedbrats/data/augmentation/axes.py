"""Axes exchanged and mirrored, and now and then a modality of noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedbrats.data.augmentation.flipping import flipped, flips_of

FLIP = 0.5  # probability, for each axis on its own
REPLACE = 0.1  # probability that a modality becomes noise


def axes(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe axes, that of the MAAB U-Net (BrainLes 2021), section 2.5.

    Printed, all without numbers: "random crop, three-axis random permutation, random replace channel with gaussian
    distribution, and random mirroring of each axis". The crop is the patch itself.

    Chosen: every permutation of the axes is as likely, of those whose sides are equal, because a batch has one shape;
    each axis is mirrored with probability 0.5; with probability 0.1 one of the modalities, each as likely, is replaced
    by noise of mean 0 and deviation 1, which z-scores have, inside the brain. Background stays 0.

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
        order = [0, *(1 + axis for axis in _permutation(labels.shape[1:], state))]
        image, label = flipped(flips, images[index].permute(order), labels[index][None].permute(order))
        if state.uniform() < REPLACE:
            image, channel = image.clone(), state.randint(len(image))
            noise = torch.from_numpy(state.normal(size=image.shape[1:])).to(image)
            image[channel] = noise.masked_fill(image[channel] == 0, 0)
        new_images[index], new_labels[index] = image, label[0]
    return new_images, new_labels


def _permutation(sides: torch.Size, state: np.random.RandomState) -> list[int]:
    """An order of the axes that leaves `sides` as they are."""
    order = list(range(len(sides)))
    for side in sorted(set(sides)):
        alike = [axis for axis in order if sides[axis] == side]
        drawn = state.permutation(alike).tolist()
        order = [drawn.pop() if sides[axis] == side else order[axis] for axis in range(len(sides))]
    return order

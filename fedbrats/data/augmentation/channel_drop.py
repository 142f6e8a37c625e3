"""Noise, a modality that is missing, and turned axes: the augmentation of HarDNet-BTS."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PROBABILITY = 0.5  # that a sample is changed at all
SCALES = (0.9, 1.1)
NOISE = 0.1  # standard deviation, as a share of that of each modality's brain
DROPPED = 0.16  # probability that a changed sample loses a modality


def channel_drop(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe channel_drop (HarDNet-BTS, BrainLes 2021, section 2.3), 2D and 3D, each sample with its own draws.

    Printed: "scaling each voxel to the range between 0.9 and 1.1", "some Gaussian noise", "randomly dropping one of the
    four input channels", "flip and transpose"; no probabilities. Chosen, as in the public release (which draws once for
    a batch): half of the samples are changed; one factor for all voxels; noise of a tenth of the standard deviation of
    each modality's brain, on the brain only, so that background stays 0; a modality, of several that are not
    0, is set to 0 with a probability of 0.16; two axes of one length change places, and one axis is mirrored.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    new_images, new_labels = images.clone(), labels.clone()
    for index in range(len(images)):
        if state.uniform() < PROBABILITY:
            image = _intensities(images[index], state)
            new_images[index], new_labels[index] = _turned(image, labels[index], state)
    return new_images, new_labels


def _intensities(image: Tensor, state: np.random.RandomState) -> Tensor:
    """[C, *S] scaled, with noise, perhaps without one of its modalities."""
    background = image == 0
    image = image * float(state.uniform(*SCALES))
    drawn = torch.from_numpy(state.normal(size=tuple(image.shape))).to(image)
    spreads = [one[one != 0].std(correction=0) if one.any() else image.new_zeros(()) for one in image]
    spread = torch.stack(spreads).view(-1, *[1] * (image.ndim - 1))
    image = (image + NOISE * spread * drawn).masked_fill(background, 0)
    if state.uniform() < DROPPED:
        seen = [channel for channel, one in enumerate(image) if one.any()]
        if len(seen) > 1:  # a site may lack some, whose channels are 0, and one must stay
            image[seen[state.randint(len(seen))]] = 0
    return image


def _turned(image: Tensor, label: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """[C, *S] and [*S] with two axes of one length changed, and one axis mirrored; counted from behind."""
    axes, sides = range(-label.ndim, 0), label.shape
    pairs = [(a, b) for a in axes for b in axes if a < b and sides[a] == sides[b]]
    if pairs:
        a, b = pairs[state.randint(len(pairs))]
        image, label = image.transpose(a, b), label.transpose(a, b)
    mirrored = [axes[state.randint(label.ndim)]]
    return image.flip(mirrored), label.flip(mirrored)

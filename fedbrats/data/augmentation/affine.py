"""An affine map and intensities shifted, scaled and noisy, all of them by normal distributions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedbrats.data.augmentation.moving import moved

SHIFT, ANGLE, SCALE = (
    2.0,
    10.0,
    0.03,
)  # standard deviations: mm along and degrees about each axis, share of each axis
OFFSET, FACTOR, NOISE = 0.1, 0.1, 0.1  # standard deviations, in those of the image


def affine(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe affine, that of the U-Net with a variational branch (BrainLes 2021), section 2.3 and Table 1.

    Printed: shift N(0, 2 mm), rotation about x, y and z N(0, 10 degrees), scaling of x, y and z N(1, 0.03), and after
    the z-score intensity shift N(0, 0.1), amplification N(1, 0.1) and noise N(0, 0.1) on every voxel. The print makes
    32 copies of each case before training; here each patch has draws of its own. Chosen: voxels are mm, as in BraTS;
    shift and amplification are drawn for each modality. A slice turns and moves in its plane. Background stays 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from; each sample has draws of its own.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    axes, limit = labels.ndim - 1, math.radians(ANGLE)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        image, label = moved(
            images[index],
            labels[index],
            angles=state.normal(0, limit, 1 if axes == 2 else 3).tolist(),
            shift=state.normal(0, SHIFT, axes).tolist(),
            scale=(1 / state.normal(1, SCALE, axes)).tolist(),
        )
        ones = (len(image), *[1] * axes)
        factor, offset = state.normal(1, FACTOR, ones), state.normal(0, OFFSET, ones)
        noise = state.normal(0, NOISE, tuple(image.shape))
        changed = image * torch.from_numpy(factor).to(image) + torch.from_numpy(offset + noise).to(image)
        new_images[index], new_labels[index] = changed.masked_fill(image == 0, 0), label
    return new_images, new_labels

"""Elastic deformation of training patches: a coarse grid of random displacements, smooth in between."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

PROBABILITY = 0.75
DISPLACEMENT = 2.0  # standard deviation in voxels, of each axis at each point
POINTS = 3  # along each axis of the grid


def elastic(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe elastic (section 2.1 of the U-Net from Vox2Vox's generator, BrainLes 2021), 2D and 3D.

    Printed: a "square deformation grid with displacements sampled from a normal distribution with standard deviation 2
    voxels with probability being 0.75". Not printed: the number of points, here 3 along each axis (the default of the
    library that Vox2Vox's release deforms with), the outermost on the edge of the patch; and the interpolation: linear
    between the points, linear of images, nearest of labels. What comes in from outside the patch is background, and so
    is what lies outside the brain mask (any modality not 0), which moves with the labels.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from; each sample has draws of its own.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    new_images, new_labels = images.clone(), labels.clone()
    for index in range(len(images)):
        if state.uniform() >= PROBABILITY:
            continue
        places = _places(images[index], state)
        both = torch.stack([labels[index], (images[index] != 0).any(0).to(labels.dtype)]).float()
        moved = grid_sample(images[index][None], places, mode="bilinear", align_corners=True)[0]
        label, brain = grid_sample(both[None], places, mode="nearest", align_corners=True)[0]
        new_images[index] = moved.masked_fill(brain == 0, 0)
        new_labels[index] = label.to(labels.dtype)
    return new_images, new_labels


def _places(image: Tensor, state: np.random.RandomState) -> Tensor:
    """Where each voxel of `image` [C, *S] is read, as `grid_sample` wants it: [1, *S, axes], the last axis first."""
    sides = image.shape[1:]
    drawn = state.normal(0, DISPLACEMENT, (1, len(sides), *[POINTS] * len(sides)))
    # -1 to 1 is one voxel less than a side.
    scale = 2 / (torch.tensor(sides[::-1], dtype=torch.float64) - 1).clamp_min(1)
    coarse = torch.from_numpy(drawn) * scale.view(1, -1, *[1] * len(sides))
    mode = "trilinear" if len(sides) == 3 else "bilinear"
    smooth = interpolate(coarse.to(image), size=tuple(sides), mode=mode, align_corners=True).movedim(1, -1)
    still = torch.eye(len(sides), len(sides) + 1)[None].to(image)
    return affine_grid(still, [1, 1, *sides], align_corners=True) + smooth

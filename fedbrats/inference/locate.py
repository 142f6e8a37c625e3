"""Locate, then refine: a first network finds the tumour, a second one sees only a crop around it.

The idea is that of "Residual 3D U-Net with Localization for Brain Tumor Segmentation" (BrainLes 2021): a network on
the whole volume predicts the whole tumour, the images are "centred around" it and cropped to 128 x 128 x 128. Any pair
of networks will do here. What "centred" means is not printed: see `box_around`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from fedbrats.data.preprocess import slices_of
from fedbrats.inference.predict import Prediction
from fedbrats.tasks.segmentation import is_softmax

NO_TUMOUR = "the localiser found no tumour: the whole volume was segmented"


def refine(
    mask: np.ndarray, image: np.ndarray, crop: Sequence[int], predict_part: Callable[[np.ndarray], Prediction]
) -> Prediction:
    """Predict a crop around the tumour of `mask`; outside it is background.

    Args:
        mask: whole tumour as the first network sees it, bool [X, Y, Z].
        image: what the second network takes, float [4, X, Y, Z].
        crop: sides in voxels; a volume that is smaller is taken whole along that side, and the sliding window fills
            it up with background where the network needs more.
        predict_part: the second network, from a part of the image.

    Returns:
        The prediction of the whole volume. Without a tumour in the mask it is that of `predict_part` for all of it,
        and the notes say so; they also say when the tumour is larger than the crop.
    """
    if not mask.any():
        whole = predict_part(image)
        return replace(whole, notes=(*whole.notes, NO_TUMOUR))
    box = box_around(mask, crop)
    found = predict_part(image[:, *slices_of(box)])
    outside = int(np.count_nonzero(mask) - np.count_nonzero(mask[slices_of(box)]))
    notes = found.notes
    if outside:
        sides = "x".join(map(str, crop))
        notes = (
            *notes,
            f"the located tumour is larger than the crop {sides}: {outside} of its voxels lie outside",
        )
    probabilities = _pasted(found.probabilities, box, mask.shape)
    if is_softmax(len(probabilities)):
        probabilities[0] = 1
        probabilities[0][slices_of(box)] = found.probabilities[0]
    spread = None if found.spread is None else _pasted(found.spread, box, mask.shape)
    mean = None if found.mean is None else _pasted(found.mean, box, mask.shape)
    return replace(found, probabilities=probabilities, spread=spread, notes=notes, mean=mean)


def _pasted(part: Tensor, box: Sequence[Sequence[int]], shape: Sequence[int]) -> Tensor:
    """`part` [C, ...] at its place in a volume of 0 [C, *shape]."""
    whole = torch.zeros(len(part), *shape).to(part)
    whole[:, *slices_of(box)] = part
    return whole


def box_around(mask: np.ndarray, crop: Sequence[int]) -> list[list[int]]:
    """Return [[low, high] * 3] of `crop` voxels (fewer where the volume is smaller) around the tumour of `mask`.

    Its centre is that of the bounding box of all of the mask, so that nothing is cut off, if that fits into the crop;
    else that of the bounding box of the largest component (26 neighbours), so that a stray voxel far away cannot pull
    the crop off the tumour. The crop is moved, not shortened, where it would leave the volume.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("expected a mask with at least one voxel")
    (around,) = ndimage.find_objects(mask.astype(np.uint8))
    if any(s.stop - s.start > side for s, side in zip(around, crop, strict=True)):
        components, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        largest = int(np.bincount(components.ravel())[1:].argmax())
        around = ndimage.find_objects(components)[largest]
    box = []
    for part, side, size in zip(around, crop, mask.shape, strict=True):
        side = min(side, size)
        low = (part.start + part.stop - side) // 2
        low = max(0, min(low, size - side))
        box.append([low, low + side])
    return box

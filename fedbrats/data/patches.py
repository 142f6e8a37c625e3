"""Random training patches, read from the cache one patch at a time, and their light augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import set_track_meta
from monai.transforms import RandFlip, RandScaleIntensity, RandShiftIntensity

from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES

FLIP = 0.5  # probability, for each axis on its own
SCALE = 0.1  # intensities are multiplied by 1 + U(-SCALE, SCALE), drawn for each modality
SHIFT = 0.1  # and shifted by U(-SHIFT, SHIFT), in standard deviations


def draw_batch(
    cases: Sequence[CachedCase],
    rng: np.random.Generator,
    *,
    patch: Sequence[int],
    batch: int,
    tumour_share: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch of patches, each from a case chosen uniformly at random.

    The first ceil(batch * tumour_share) patches hold a random tumour voxel, at their centre (index
    patch // 2) unless the patch would then stick out of the volume and is moved inside. If the case has no
    tumour they are placed as the others are, uniformly inside the volume. Along an axis where the patch is
    larger than the volume, the volume lies in the middle of zeros. Only the patch is read from disk.

    Args:
        cases: labelled cases of one site.
        rng: the only source of randomness.
        patch: voxels along X, Y, Z.
        batch: number of patches B.
        tumour_share: between 0 and 1.

    Returns:
        Images float32 [B, 4, *patch] in the order of `MODALITIES` and canonical labels uint8 [B, *patch].

    Raises:
        ValueError: no cases, a case without label, or a size or share out of range.
    """
    if not cases:
        raise ValueError("cannot draw patches from no cases")
    if len(patch) != 3 or min(patch) < 1 or batch < 1 or not 0 <= tumour_share <= 1:
        raise ValueError(
            "expected patch of 3 positive sizes, batch >= 1 and tumour_share in [0, 1], got "
            f"patch={list(patch)}, batch={batch}, tumour_share={tumour_share}"
        )
    images = np.zeros((batch, len(MODALITIES), *patch), np.float32)
    labels = np.zeros((batch, *patch), np.uint8)
    on_tumour = math.ceil(batch * tumour_share - 1e-9)  # 100 * 0.07 is a little more than 7
    for index in range(batch):
        case = cases[int(rng.integers(len(cases)))]
        image, label = case.image, case.label
        centres = case.tumour if index < on_tumour else None
        source, target = _place(np.array(label.shape), np.array(patch), centres, rng)
        # Torch widens float16 several times faster than NumPy; the copy makes it a plain, writable array.
        values = torch.from_numpy(np.array(image[(slice(None), *source)]))
        torch.from_numpy(images[index])[(slice(None), *target)] = values.float()
        labels[index][target] = label[source]
    return images, labels


def _place(
    shape: np.ndarray, patch: np.ndarray, centres: np.ndarray | None, rng: np.random.Generator
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Choose where a patch lies; return the part of the volume it covers and the place of it in the patch."""
    room = shape - patch
    if centres is not None and len(centres):
        start = centres[int(rng.integers(len(centres)))].astype(np.int64) - patch // 2
        start = np.clip(start, 0, np.maximum(room, 0))
    else:
        start = rng.integers(np.maximum(room, 0) + 1)
    start = np.where(room < 0, room // 2, start)
    low, high = np.maximum(start, 0), np.minimum(start + patch, shape)
    source = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    target = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start))
    return source, target


def augment(
    images: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flip image and label together, then scale and shift the intensities of each modality, sample by sample.

    The recipe (mirror each axis with probability 0.5, scale by 0.9 to 1.1 and shift by up to 0.1 standard
    deviations per channel) is that of Myronenko, "3D MRI brain tumor segmentation using autoencoder
    regularization", BrainLes 2018, done by MONAI's transforms. Voxels that are exactly 0 stay 0: they are
    background, which inference also sees as 0. MONAI's meta tracking is switched off for the process, as it
    would wrap every patch.

    Args:
        images: [B, 4, X, Y, Z], float32, on any device.
        labels: [B, X, Y, Z], any dtype.
        rng: the only source of randomness; the draws do not depend on the device.

    Returns:
        New tensors of the same shapes, dtypes and device.
    """
    set_track_meta(False)
    state = np.random.RandomState(int(rng.integers(2**32)))  # what MONAI's transforms draw from
    flips = [RandFlip(FLIP, spatial_axis=axis) for axis in range(3)]
    scale = RandScaleIntensity(SCALE, prob=1.0, channel_wise=True)
    shift = RandShiftIntensity(SHIFT, prob=1.0, channel_wise=True)
    for transform in (*flips, scale, shift):
        transform.set_random_state(state=state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        image, label = images[index], labels[index][None]
        for flip in flips:
            image = flip(image)
            label = flip(label, randomize=False)  # as the image was
        background = image == 0
        new_images[index] = shift(scale(image)).masked_fill_(background, 0)
        new_labels[index] = label[0]
    return new_images, new_labels

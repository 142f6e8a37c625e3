"""Random training patches and slices, read from the cache one at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.intensity import Normaliser
from fedbrats.data.regions import BACKGROUND

CENTRES = ("any", "class", "box")
NORMAL = {"sagittal": 0, "coronal": 1, "axial": 2}  # axis of canonical RAS+ space that stands on the plane


def draw_batch(
    cases: Sequence[CachedCase],
    rng: np.random.Generator,
    *,
    patch: Sequence[int],
    batch: int,
    tumour_share: float,
    tumour_centre: str = "any",
    planes: Sequence[str] = ("axial",),
    normalise: Normaliser | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch of patches, each from a case chosen uniformly at random.

    The first ceil(batch * tumour_share) patches hold a voxel that `tumour_centre` names, at their centre (index
    patch // 2) unless the patch would then stick out of the volume and is moved inside. If the case has no
    tumour they are placed as the others are, uniformly inside the volume. Along an axis where the patch is
    larger than the volume, the volume lies in the middle of zeros. Only the patch is read from disk.

    any: a random tumour voxel, so mostly oedema, the largest part. class: one of the parts (NCR, ED, ET) that the case
    has, each as likely, then a random voxel of it ("one randomly chosen foreground class", nnU-Net). box: the middle of
    the tumour's bounding box, as a localiser crops.

    A patch of two sides lies in one slice, that is, it is a patch one voxel thick, placed by the same rules; its plane
    is chosen uniformly at random. Z runs fastest in the cached volume, so a sagittal slice is one block of the file
    (0.4 ms for 240 x 240 of a BraTS case in the page cache), while an axial one is spread over all of it (3 ms).

    Args:
        cases: labelled cases of one site.
        rng: the only source of randomness.
        patch: voxels along X, Y, Z; or along the two axes of a slice.
        batch: number of patches B.
        tumour_share: between 0 and 1.
        tumour_centre: one of `CENTRES`.
        planes: for slices only: "axial" (sides X, Y), "coronal" (X, Z) or "sagittal" (Y, Z), one or more.
        normalise: changes the values of a part of a case's image, see `intensity.normaliser`; the zeros around the
            volume stay 0. None takes the cache as it is.

    Returns:
        Images float32 [B, 4, *patch] in the order of `MODALITIES` and canonical labels uint8 [B, *patch].

    Raises:
        ValueError: no cases, a case without label, an unknown plane, or a size or share out of range.
    """
    _check_request(cases, patch, batch, tumour_share, planes)
    if tumour_centre not in CENTRES:
        raise ValueError(f"tumour_centre={tumour_centre}: choose one of {', '.join(CENTRES)}")
    images = np.zeros((batch, len(MODALITIES), *patch), np.float32)
    labels = np.zeros((batch, *patch), np.uint8)
    on_tumour = math.ceil(batch * tumour_share - 1e-9)  # 100 * 0.07 is a little more than 7
    for index in range(batch):
        case = cases[int(rng.integers(len(cases)))]
        axis = NORMAL[planes[int(rng.integers(len(planes)))]] if len(patch) == 2 else None
        box = np.array(patch) if axis is None else np.insert(patch, axis, 1)
        centres = case.tumour if index < on_tumour else None
        label = case.label
        centre = None if centres is None or not len(centres) else _centre(case, centres, tumour_centre, rng)
        source, target = _place(np.array(label.shape), box, centre, rng)
        values = _read(case, source, normalise)
        image, truth = torch.from_numpy(images[index]), labels[index]
        if axis is not None:  # views with a third side of 1, as the volume has it
            image, truth = image.unsqueeze(axis + 1), np.expand_dims(truth, axis)
        image[(slice(None), *target)] = values
        truth[target] = label[source]
    return images, labels


def _check_request(
    cases: Sequence[CachedCase],
    patch: Sequence[int],
    batch: int,
    tumour_share: float,
    planes: Sequence[str],
) -> None:
    if not cases:
        raise ValueError("cannot draw patches from no cases")
    if len(patch) not in (2, 3) or min(patch) < 1 or batch < 1 or not 0 <= tumour_share <= 1:
        raise ValueError(
            "expected patch of 3 positive sizes (2 for slices), batch >= 1 and tumour_share in [0, 1], got "
            f"patch={list(patch)}, batch={batch}, tumour_share={tumour_share}"
        )
    if len(patch) == 2 and (not planes or set(planes) - NORMAL.keys()):
        raise ValueError(f"planes={list(planes)}: name one or more of {', '.join(NORMAL)}")


def _read(case: CachedCase, source: tuple[slice, ...], normalise: Normaliser | None) -> torch.Tensor:
    """Part of the image of a case, float32."""
    # Torch widens float16 several times faster than NumPy; the copy makes it a plain, writable array.
    values = torch.from_numpy(np.array(case.image[(slice(None), *source)])).float()
    return values if normalise is None else torch.from_numpy(normalise(case, values.numpy()))


def _centre(case: CachedCase, centres: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Voxel [3] that a patch on the tumour is centred on; `centres` [n, 3] are tumour voxels of the case."""
    if kind == "box":
        return (centres.min(axis=0).astype(np.int64) + centres.max(axis=0)) // 2
    if kind == "class":
        parts = [part for part in case.meta["labels"] if part != BACKGROUND]
        part, label = parts[int(rng.integers(len(parts)))], case.label
        known = centres[label[tuple(centres.T)] == part]
        # A part of a few voxels may be missing from the sample of the tumour that the cache keeps.
        centres = known if len(known) else np.argwhere(label == part)
    return centres[int(rng.integers(len(centres)))]


def _place(
    shape: np.ndarray, patch: np.ndarray, centre: np.ndarray | None, rng: np.random.Generator
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Choose where a patch lies; return the part of the volume it covers and the place of it in the patch."""
    room = shape - patch
    if centre is not None:
        start = centre.astype(np.int64) - patch // 2
        start = np.clip(start, 0, np.maximum(room, 0))
    else:
        start = rng.integers(np.maximum(room, 0) + 1)
    start = np.where(room < 0, room // 2, start)
    low, high = np.maximum(start, 0), np.minimum(start + patch, shape)
    source = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    target = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start))
    return source, target

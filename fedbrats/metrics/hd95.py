"""The 95th percentile Hausdorff distance (HD95) of two binary masks, in the three conventions in use.

One pair of masks has a different HD95 in every tool, so a number without its convention says nothing:

    brats2023  DeepMind surface-distance, as used by the BraTS 2023 metrics: each direction is weighted by
               surface area, the larger direction counts
    captk      CaPTk (BraTS up to 2022) and medpy: border voxels of both directions pooled
    monai      MONAI `HausdorffDistanceMetric(percentile=95)`: border voxels, the larger direction counts

Distances are in mm and finite for every input: both masks empty is 0, one mask empty is the penalty of the
convention. Distances are measured inside the bounding box of both masks, which changes no value.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

PERCENT = 95.0
BRATS2023_PENALTY = 374.0  # mm
CAPTK_PENALTY = float(np.sqrt(240**2 + 240**2 + 155**2))  # mm, diagonal of a BraTS volume, 373.13
MONAI_PENALTY = BRATS2023_PENALTY  # mm; MONAI itself says NaN, which a mean then drops: a miss would be free
PENALTY = {"brats2023": BRATS2023_PENALTY, "captk": CAPTK_PENALTY, "monai": MONAI_PENALTY}
CONVENTIONS = tuple(PENALTY)

Spacing = tuple[float, float, float]


def check_convention(convention: str) -> None:
    """Raise ValueError unless `convention` is one of `CONVENTIONS`."""
    if convention not in CONVENTIONS:
        raise ValueError(
            f"metrics.convention: unknown {convention!r}, expected one of {', '.join(CONVENTIONS)}"
        )


def hd95(
    prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, convention: str, crop: bool = True
) -> float:
    """Return the HD95 in mm of two bool masks [X, Y, Z].

    Args:
        prediction: bool mask.
        reference: bool mask of the same shape.
        spacing: voxel size in mm along X, Y, Z.
        convention: one of `CONVENTIONS`.
        crop: measure inside the bounding box only; same value, much less time.

    Raises:
        ValueError: unknown convention.
    """
    check_convention(convention)
    if not prediction.any() and not reference.any():
        return 0.0
    if not prediction.any() or not reference.any():
        return PENALTY[convention]
    if crop:
        box = union_box(prediction, reference, margin=1)
        prediction, reference = prediction[box], reference[box]
    measure = {"brats2023": hd95_brats2023, "captk": hd95_captk, "monai": hd95_monai}[convention]
    return measure(prediction, reference, spacing)


def union_box(a: np.ndarray, b: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Return the bounding box of `a | b` widened by `margin` voxels; the whole volume if both are empty.

    Nothing is added beyond the edge of the volume.
    """
    union = a | b
    box = []
    for axis, size in enumerate(union.shape):
        used = np.flatnonzero(union.any(axis=tuple(i for i in range(union.ndim) if i != axis)))
        if used.size == 0:
            return tuple(slice(0, n) for n in union.shape)
        box.append(slice(max(0, int(used[0]) - margin), min(size, int(used[-1]) + 1 + margin)))
    return tuple(box)


def hd95_brats2023(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Return the HD95 of DeepMind's `compute_robust_hausdorff` of two non-empty bool masks (mm).

    The surface lives on voxel corners: a corner belongs to it when its eight voxels differ, and has the area
    in mm2 of the marching-cubes triangles of that pattern. Each direction gives the smallest distance that
    covers 95 % of its area; the larger of the two is returned.
    """
    area_p, area_r = _surface_area(prediction, spacing), _surface_area(reference, spacing)
    surface_p, surface_r = ~np.isnan(area_p), ~np.isnan(area_r)
    to_reference = _distance_to(surface_r, spacing)[surface_p]
    to_prediction = _distance_to(surface_p, spacing)[surface_r]
    return max(
        _area_percentile(to_reference, area_p[surface_p]), _area_percentile(to_prediction, area_r[surface_r])
    )


def hd95_captk(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Return the HD95 of CaPTk and medpy of two non-empty bool masks (mm).

    The 95th percentile (linear interpolation) of the border distances of both directions together.
    """
    return float(np.percentile(np.concatenate(_border_distances(prediction, reference, spacing)), PERCENT))


def hd95_monai(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> float:
    """Return the HD95 of MONAI's `compute_hausdorff_distance` of two non-empty bool masks (mm).

    The larger of the two directed 95th percentiles (linear interpolation) of the border distances. Written
    here with a distance transform, whose time is bounded: the search tree of MONAI 1.6 takes about 20 times
    as long on the ragged masks of an untrained model. MONAI has no value for a missed tumour; `hd95` gives
    `MONAI_PENALTY`.
    """
    there, back = _border_distances(prediction, reference, spacing)
    return float(max(np.percentile(there, PERCENT), np.percentile(back, PERCENT)))


def _border_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Spacing
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the border voxels of each mask (a face neighbour is outside) to the other border."""
    border_p = prediction & ~ndimage.binary_erosion(prediction)
    border_r = reference & ~ndimage.binary_erosion(reference)
    return _distance_to(border_r, spacing)[border_p], _distance_to(border_p, spacing)[border_r]


def _distance_to(points: np.ndarray, spacing: Spacing) -> np.ndarray:
    return np.asarray(ndimage.distance_transform_edt(~points, sampling=spacing))


def _surface_area(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Area in mm2 of the surface at every voxel corner, [X+1, Y+1, Z+1]; NaN where there is no surface."""
    table, weights = _corner_table(spacing)
    padded = np.pad(mask, 1)
    x, y, z = (n - 1 for n in padded.shape)
    code = np.zeros((x, y, z), np.uint8)
    for (i, j, k), weight in np.ndenumerate(weights):
        code |= padded[i : i + x, j : j + y, k : k + z] * weight
    return table[code]


@lru_cache(maxsize=8)
def _corner_table(spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Area of each of the 256 patterns of eight voxels; bit of each voxel in the pattern [2, 2, 2]."""
    from monai.metrics.utils import get_code_to_measure_table  # seconds, which other scores need not wait for

    measures, kernel = get_code_to_measure_table(spacing)
    area = np.asarray(measures, np.float64).copy()
    area[[0, 255]] = np.nan  # all voxels alike: no surface
    return area, np.asarray(kernel).reshape(2, 2, 2).astype(np.uint8)


def _area_percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    order = np.argsort(distances, kind="stable")
    covered = np.cumsum(areas[order]) / np.sum(areas)
    index = min(int(np.searchsorted(covered, PERCENT / 100)), len(order) - 1)
    return float(distances[order[index]])

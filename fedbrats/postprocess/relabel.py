"""What the steps share: the mask of a region, taking a region away from voxels, components, volumes in mL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import ndimage

from fedbrats.data.regions import BACKGROUND, ED, NCR, REGIONS, regions_from_labels

OUTSIDE = {
    "WT": BACKGROUND,
    "TC": ED,
    "ET": NCR,
}  # what a voxel becomes that does not belong to the region after all
TOUCHING = ndimage.generate_binary_structure(3, 3)  # 26 neighbours, as BraTS counts lesions
Step = TypeVar("Step")


def check_region(region: str) -> None:
    """Raises ValueError for anything but a name of `REGIONS`."""
    if region not in REGIONS:
        raise ValueError(f"region={region}: choose one of {', '.join(REGIONS)}")


def check_at_least_zero(**values: float | None) -> None:
    """Raises ValueError for a value that is neither None nor a finite number of at least 0."""
    for name, value in values.items():
        if value is not None and not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}={value}: must be a number of at least 0, or null to fit it")


def region_mask(labels: np.ndarray, region: str) -> np.ndarray:
    """Mask (bool) of one region of canonical labels, the same shape."""
    return np.asarray(regions_from_labels(labels)[REGIONS.index(region)])


def without(labels: np.ndarray, where: np.ndarray, region: str) -> np.ndarray:
    """New labels in which the voxels `where` (bool) do not belong to `region`.

    ET becomes NCR, so that TC and WT stay; TC becomes ED, so that WT stays; WT becomes background. Voxels of `where`
    that are not in the region stay as they are.
    """
    changed = labels.copy()
    changed[where & region_mask(labels, region)] = OUTSIDE[region]
    return changed


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of `mask` [X, Y, Z] (26 neighbours).

    Returns:
        Number of its component for each voxel (0 outside), in scan order, and voxels of each (index 0 is 0).
    """
    numbers, _ = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    return numbers, sizes


def voxel_ml(spacing: Sequence[float]) -> float:
    """Volume of a voxel in mL from its sides in mm."""
    return float(np.prod(np.asarray(spacing, float))) / 1000


def given(value: float | None) -> float:
    """A threshold. Raises ValueError where it has not been fitted yet."""
    if value is None:
        raise ValueError("a threshold of postprocess.steps has not been fitted")
    return value


def known(step: Step, parameters: dict[str, float], names: Sequence[str]) -> dict[str, Any]:
    """`parameters`, checked.

    Raises:
        ValueError: it holds a name that `step` does not fit.
    """
    unknown = sorted(parameters.keys() - set(names))
    if unknown:
        raise ValueError(
            f"{type(step).__name__}: {', '.join(unknown)} is not fitted here; its parameters to fit: "
            f"{', '.join(names) or 'none'}"
        )
    return dict(parameters)

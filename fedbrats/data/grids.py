"""Where the voxels of two volumes lie in the world: one rule for the check of cases and for the evaluation."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from fedbrats.data.nifti import Source, canonical_affine, canonical_shape, spacing_of

TOLERANCE = 0.1  # voxels that the corners of two volumes on one grid may lie apart
_RAS = axcodes2ornt(("R", "A", "S"))


def difference(one: Source, other: Source) -> str | None:
    """Say how the grid of `one` differs from that of `other`, however their axes are stored; None if it does not.

    They are the same where they have as many voxels and no corner lies more than a tenth of a voxel apart.
    """
    shape, expected = canonical_shape(one), canonical_shape(other)
    if shape != expected:
        return f"wrong shape {shape}, expected {expected}"
    apart = corners_apart(canonical_affine(one), canonical_affine(other), shape)
    if apart > TOLERANCE * min(spacing_of(other)):
        return f"wrong affine, its corners lie up to {apart:.3g} mm apart from those"
    return None


def forms_apart(source: Source) -> float:
    """How far apart qform and sform put a corner of the volume, in mm along one axis; 0 within the tolerance."""
    if source.qform is None:
        return 0.0
    apart = corners_apart(np.array(source.qform), np.array(source.affine), source.shape)
    return apart if apart > TOLERANCE * min(spacing_of(source)) else 0.0


def corners_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance (mm, along one axis) that two affines 4x4 put between a corner of a volume and itself."""
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in shape)), -1).reshape(-1, 3)
    return float(np.abs((one - other) @ np.column_stack([corners, np.ones(len(corners))]).T).max())


def stored_in(voxels: np.ndarray, own: Source, other: Source) -> np.ndarray:
    """Voxels [X, Y, Z] in canonical order by the header of `own` as they are by that of `other`, of the same shape.

    Raises:
        ValueError: the stored shapes differ.
    """
    if own.shape != other.shape:
        raise ValueError(f"stored with shape {own.shape}, expected {other.shape}")
    stored = apply_orientation(voxels, ornt_transform(_RAS, io_orientation(np.array(own.affine))))
    order = ornt_transform(io_orientation(np.array(other.affine)), _RAS)
    return np.ascontiguousarray(apply_orientation(stored, order))

"""NIfTI volumes in one canonical orientation: read as RAS, written back as they lay on disk.

Canonical means that the array axes run closest to right, anterior, superior. It is reached by permuting and
flipping axes only, so no voxel value changes and the way back is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from fedbrats.data.stream import Bounds, Volume, VolumeError, check_file, read_head, read_voxels
from fedbrats.files import replacing

SUFFIXES = (".nii.gz", ".nii")
_RAS = axcodes2ornt(("R", "A", "S"))
USUAL = Bounds()
_FURTHEST = 1e6  # mm, of anything in an affine


@dataclass(frozen=True)
class Source:
    """The space of a volume as it lies on disk; JSON-able with `dataclasses.asdict`.

    shape: voxels along the stored axes; affine: 4x4, stored voxel to world (RAS, mm); orientation: where the
    stored axes point, such as "LPS". What else the header says of the space: codes of qform and sform (0 = not set),
    the qform where it is another matrix than `affine`, and the byte of the units (2 = mm).
    """

    shape: tuple[int, int, int]
    affine: list[list[float]]
    orientation: str
    qform_code: int = 0
    sform_code: int = 0
    qform: list[list[float]] | None = None
    units: int = 0


@dataclass(frozen=True)
class Header:
    """What a file says about itself: stored shape (3D or 4D) and space."""

    shape: tuple[int, ...]
    source: Source

    @property
    def has_world_space(self) -> bool:
        """Whether sform or qform is set."""
        return bool(self.source.sform_code or self.source.qform_code)


@lru_cache(maxsize=1)
def _read_4d(path: Path, bounds: Bounds, size: int, modified: int) -> tuple[Volume, Any]:
    """Keep the last 4D file unpacked, since its channels are asked for one after another."""
    return read_voxels(path, bounds)


def _header_of(volume: Volume, path: Path) -> Header:
    shape, affine = volume.shape, volume.affine
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4):
        raise VolumeError(f"{path}: expected a 3D or 4D volume, found shape {shape}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError(f"{path}: the affine is singular or not finite, expected a voxel-to-world matrix")
    if (furthest := float(np.abs(affine).max())) > _FURTHEST:
        raise VolumeError(f"{path}: the affine holds {furthest:g}, expected millimetres")
    codes = "".join(nib.aff2axcodes(affine))
    said = {key: int(volume.header[key]) for key in ("qform_code", "sform_code")}
    units, qform = int(volume.header["xyzt_units"]), _other_qform(volume, affine)
    where = Source((shape[0], shape[1], shape[2]), affine.tolist(), codes, **said, qform=qform, units=units)
    return Header(shape, where)


def _other_qform(volume: Volume, affine: np.ndarray) -> list[list[float]] | None:
    """The qform where both are set and it differs from the sform by more than rounding."""
    if not (int(volume.header["qform_code"]) and int(volume.header["sform_code"])):
        return None
    try:
        qform = np.asarray(volume.header.get_qform(), float)
    except Exception:  # a quaternion that is none
        return None
    same = not np.isfinite(qform).all() or np.allclose(qform, affine, rtol=0, atol=1e-2)
    return None if same else qform.tolist()


def read_header(path: Path, bounds: Bounds = USUAL) -> Header:
    """Read shape and space of a file without its voxels.

    Raises:
        VolumeError: missing, empty or unreadable file, a shape that is not 3D or 4D or beyond `bounds`, a singular
            affine.
    """
    return _header_of(read_head(Path(path), bounds), path)


def read_volume(path: Path, channel: int | None = None, bounds: Bounds = USUAL) -> tuple[np.ndarray, Source]:
    """Read one volume in canonical RAS order.

    Args:
        path: `.nii` or `.nii.gz`.
        channel: index into the fourth axis of a 4D file; None for a 3D file.
        bounds: how large a file may be and where it may lie.

    Returns:
        The voxels [X, Y, Z], X to the right, Y to anterior, Z to superior (dtype of the file; float when the
        header scales), contiguous; and the space on disk.

    Raises:
        VolumeError: as `read_header`, a file that holds less or more than its header claims, or a `channel` that does
            not fit the file.
    """
    path = Path(path)
    if channel is None:
        volume, voxels = read_voxels(path, bounds)
    else:
        check_file(path, bounds)
        stat = path.stat()
        volume, voxels = _read_4d(path, bounds, stat.st_size, stat.st_mtime_ns)
    header = _header_of(volume, path)
    _check_channel(path, header.shape, channel)
    try:
        data = voxels[..., channel] if channel is not None else np.asanyarray(voxels)
        data = data.reshape(header.shape[:3])
        return np.ascontiguousarray(apply_orientation(data, _to_ras(header.source))), header.source
    except MemoryError as error:
        raise VolumeError(f"{path}: this machine has not enough memory for {header.shape}") from error


def _check_channel(path: Path, shape: tuple[int, ...], channel: int | None) -> None:
    if channel is None and len(shape) != 3:
        raise VolumeError(f"{path}: expected a 3D volume, found shape {shape}")
    if channel is not None and (len(shape) != 4 or not 0 <= channel < shape[3]):
        raise VolumeError(f"{path}: expected a 4D file with channel {channel}, found shape {shape}")


def _to_ras(source: Source) -> np.ndarray:
    return ornt_transform(io_orientation(np.array(source.affine)), _RAS)


def canonical_shape(source: Source) -> tuple[int, int, int]:
    """Return the shape [X, Y, Z] that a volume stored in `source` has in memory."""
    order = np.argsort(_to_ras(source)[:, 0])
    return (source.shape[order[0]], source.shape[order[1]], source.shape[order[2]])


def canonical_affine(source: Source) -> np.ndarray:
    """Return the 4x4 affine from canonical voxel indices to world coordinates (RAS, mm)."""
    return np.array(source.affine) @ inv_ornt_aff(_to_ras(source), source.shape)


def spacing_of(source: Source) -> tuple[float, float, float]:
    """Return the voxel size in mm along the canonical axes."""
    x, y, z = (float(v) for v in np.linalg.norm(canonical_affine(source)[:3, :3], axis=0))
    return (x, y, z)


def write_labels(path: Path, labels: np.ndarray, source: Source) -> None:
    """Write labels [X, Y, Z] in canonical order as a NIfTI file in the space of `source`.

    Args:
        path: target, `.nii` or `.nii.gz`; its folder is made; replaced as a whole or not at all.
        labels: uint8, already in the numbers of the data set (`regions.to_source`), or uint16 for more of them.
        source: space on disk of the volume that was segmented; its units, qform and sform are kept.

    Raises:
        ValueError: wrong dtype, wrong shape or wrong suffix.
    """
    path = Path(path)
    suffix = next((s for s in SUFFIXES if path.name.endswith(s)), None)
    if suffix is None:
        raise ValueError(f"{path}: expected a name ending in .nii or .nii.gz")
    if labels.dtype not in (np.uint8, np.uint16) or labels.shape != canonical_shape(source):
        raise ValueError(
            f"{path}: expected uint8 or uint16 labels of shape {canonical_shape(source)}, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    back = ornt_transform(_RAS, io_orientation(np.array(source.affine)))
    image = image_in(np.ascontiguousarray(apply_orientation(labels, back)), source)
    with replacing(path) as unfinished:
        nib.save(image, unfinished)


def image_in(stored: np.ndarray, source: Source) -> nib.Nifti1Image:
    """An image of voxels in stored order, with what `source` says of its space; mm of a scanner if it says nothing."""
    affine = np.array(source.affine)
    image = nib.Nifti1Image(stored, affine)
    if source.sform_code or source.qform_code:
        image.set_sform(affine if source.sform_code else None, code=source.sform_code)
        image.set_qform(
            np.array(source.qform or affine) if source.qform_code else None, code=source.qform_code
        )
    else:
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
    image.header["xyzt_units"] = source.units
    return image

"""NIfTI volumes in one canonical orientation: read as RAS, written back as they lay on disk.

Canonical means that the array axes run closest to right, anterior, superior. It is reached by permuting and
flipping axes only, so no voxel value changes and the way back is exact.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError

from fedbrats.files import replacing

SUFFIXES = (".nii.gz", ".nii")
_RAS = axcodes2ornt(("R", "A", "S"))
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    HeaderTypeError,
    WrapStructError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
)


class VolumeError(ValueError):
    """A volume that cannot be read or used; the message names the file and what was expected."""


@dataclass(frozen=True)
class Source:
    """The space of a volume as it lies on disk; JSON-able with `dataclasses.asdict`.

    shape: voxels along the stored axes; affine: 4x4, stored voxel to world (RAS, mm); orientation: where the
    stored axes point, such as "LPS".
    """

    shape: tuple[int, int, int]
    affine: list[list[float]]
    orientation: str


@dataclass(frozen=True)
class Header:
    """What a file says about itself: stored shape (3D or 4D), space, and whether sform or qform is set."""

    shape: tuple[int, ...]
    source: Source
    has_world_space: bool


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise VolumeError(f"{path}: empty file (0 bytes), expected a NIfTI volume")
    return path


def _load(path: Path) -> Any:
    _checked(path)
    try:
        return nib.load(path)
    except _UNREADABLE as error:
        raise VolumeError(f"{path}: not a readable NIfTI file ({error})") from error


def _load_whole(path: Path) -> Any:
    """Open a file so that damage anywhere in it is seen: gzip is unpacked to its end, check sum included."""
    if not path.name.endswith(".gz"):
        return _load(path)
    packed = _checked(path).read_bytes()
    try:
        raw = gzip.decompress(packed)
    except _UNREADABLE as error:
        raise VolumeError(f"{path}: truncated or damaged gzip file ({error})") from error
    kind = nib.Nifti2Image if raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
    try:
        return kind.from_bytes(raw)
    except _UNREADABLE as error:
        raise VolumeError(f"{path}: not a readable NIfTI file ({error})") from error


@lru_cache(maxsize=1)
def _load_4d(path: Path, size: int, modified: int) -> Any:
    """Keep the last 4D file unpacked, since its channels are asked for one after another."""
    return _load_whole(path)


def _header_of(image: Any, path: Path) -> Header:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    affine = np.asarray(image.affine, float)
    if len(shape) not in (3, 4):
        raise VolumeError(f"{path}: expected a 3D or 4D volume, found shape {shape}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError(f"{path}: the affine is singular or not finite, expected a voxel-to-world matrix")
    codes = "".join(nib.aff2axcodes(affine))
    known = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    return Header(shape, Source((shape[0], shape[1], shape[2]), affine.tolist(), codes), known)


def read_header(path: Path) -> Header:
    """Read shape and space of a file without its voxels.

    Raises:
        VolumeError: missing, empty or unreadable file, a shape that is not 3D or 4D, a singular affine.
    """
    return _header_of(_load(path), path)


def read_volume(path: Path, channel: int | None = None) -> tuple[np.ndarray, Source]:
    """Read one volume in canonical RAS order.

    Args:
        path: `.nii` or `.nii.gz`.
        channel: index into the fourth axis of a 4D file; None for a 3D file.

    Returns:
        The voxels [X, Y, Z], X to the right, Y to anterior, Z to superior (dtype of the file; float when the
        header scales), contiguous; and the space on disk.

    Raises:
        VolumeError: as `read_header`, a truncated file, or a `channel` that does not fit the file.
    """
    path = Path(path)
    if channel is None:
        image = _load_whole(path)
    else:
        stat = _checked(path).stat()
        image = _load_4d(path, stat.st_size, stat.st_mtime_ns)
    header = _header_of(image, path)
    _check_channel(path, header.shape, channel)
    try:
        data = image.dataobj[..., channel] if channel is not None else np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        raise VolumeError(f"{path}: truncated or damaged, voxels cannot be read ({error})") from error
    data = data.reshape(header.shape[:3])
    return np.ascontiguousarray(apply_orientation(data, _to_ras(header.source))), header.source


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


def write_labels(path: Path, labels: np.ndarray, source: Source, reference_header: Any = None) -> None:
    """Write labels [X, Y, Z] in canonical order as a NIfTI file in the space of `source`.

    Args:
        path: target, `.nii` or `.nii.gz`; its folder is made; replaced as a whole or not at all.
        labels: uint8, already in the numbers of the data set (`regions.to_source`).
        source: space on disk of the volume that was segmented.
        reference_header: nibabel NIfTI header whose space codes and units are kept.

    Raises:
        ValueError: wrong dtype, wrong shape or wrong suffix.
    """
    path = Path(path)
    suffix = next((s for s in SUFFIXES if path.name.endswith(s)), None)
    if suffix is None:
        raise ValueError(f"{path}: expected a name ending in .nii or .nii.gz")
    if labels.dtype != np.uint8 or labels.shape != canonical_shape(source):
        raise ValueError(
            f"{path}: expected uint8 labels of shape {canonical_shape(source)}, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    affine = np.array(source.affine)
    back = ornt_transform(_RAS, io_orientation(affine))
    image = _label_image(np.ascontiguousarray(apply_orientation(labels, back)), affine, reference_header)
    with replacing(path) as unfinished:
        nib.save(image, unfinished)


def _label_image(data: np.ndarray, affine: np.ndarray, reference_header: Any) -> Any:
    image = nib.Nifti1Image(data, affine, reference_header)
    image.header.set_data_dtype(np.uint8)
    image.header.set_slope_inter(1, 0)
    image.header["cal_max"] = image.header["cal_min"] = 0
    if reference_header is None or not (reference_header["sform_code"] or reference_header["qform_code"]):
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
    return image

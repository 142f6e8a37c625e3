"""The bytes of a NIfTI file, from whomever it comes: its header is believed only as far as limits and file bear it out.

A header claims a shape, and a gzip file unpacks to a thousand times its size. So the shape is held against a limit and
against the length that the file can have before anything is allocated, the voxels are unpacked in pieces, and reading
ends at the first byte too many.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from fedbrats.config.schema import DataConfig

_MAX_BEFORE = 2**24  # bytes of header and extensions before the voxels
_MAX_ITEM = 32  # bytes of the largest voxel that NIfTI knows
_PIECE = 2**20  # bytes unpacked at a time
_DEFLATE = 1032  # bytes that one byte of deflate can become, at most
_GZIP = b"\x1f\x8b"
_POINTERS = (b"version https://git-lfs", b"/annex/objects", b"../.git/annex")
_SIZES = (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # how NIfTI-1 and NIfTI-2 begin


class VolumeError(ValueError):
    """A volume that cannot be read or used; the message names the file and what was expected."""


@dataclass(frozen=True)
class Bounds:
    """What is read of the files of strangers.

    max_voxels: of one file, the channels of a 4D file together; root: folder that a file must lie in once its links are
    followed, None for anywhere; group: of the options that set them, for messages.
    """

    max_voxels: int = DataConfig.max_voxels
    root: Path | None = None
    group: str = "data."


@dataclass(frozen=True)
class Volume:
    """A NIfTI header (nibabel's), its affine float64 [4, 4], its shape, and where its voxels lie."""

    header: Any
    affine: np.ndarray
    shape: tuple[int, ...]
    offset: int  # bytes before the voxels
    size: int  # bytes of header, extensions and voxels


def check_file(path: Path, bounds: Bounds) -> None:
    """Look at a file from outside.

    Raises:
        VolumeError: it is missing, empty, no ordinary file, too large for any volume within the bounds, or lies outside
            `bounds.root`.
    """
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    if bounds.root is not None and not (there := path.resolve()).is_relative_to(bounds.root):
        raise VolumeError(
            f"{path}: a link that leaves {bounds.root} (to {there}); copy the file, or set {bounds.group}links=follow"
        )
    size = path.stat().st_size
    if size == 0:
        raise VolumeError(f"{path}: empty file (0 bytes), expected a NIfTI volume")
    if size > _MAX_BEFORE + _MAX_ITEM * bounds.max_voxels:
        raise VolumeError(
            f"{path}: {size} bytes, more than any volume within {bounds.group}max_voxels={bounds.max_voxels}"
        )


def read_head(path: Path, bounds: Bounds) -> Volume:
    """Read what a file says about itself, without its voxels.

    Raises:
        VolumeError: as `check_file`; no NIfTI header, a shape beyond `bounds`, or a file too short for it.
    """
    check_file(path, bounds)
    with _opened(path) as stream:
        return _head(path, stream, bounds)[0]


def read_voxels(path: Path, bounds: Bounds) -> tuple[Volume, ArrayProxy]:
    """Read a file to its end, check sum of gzip included; the array is nibabel's, which scales when it is sliced.

    Raises:
        VolumeError: as `read_head`; a damaged file, or one that holds less or more than its header claims.
    """
    check_file(path, bounds)
    with _opened(path) as stream:
        volume, first = _head(path, stream, bounds)
        pieces, length = [first], len(first)
        while length < volume.size and (piece := stream.read(min(_PIECE, volume.size - length))):
            pieces.append(piece)
            length += len(piece)
        claims = f"its header claims {volume.shape}, that is {volume.size} bytes"
        if length < volume.size:
            raise VolumeError(f"{path}: truncated, {claims}, the file holds {length}")
        if stream.read(1):  # which also has the check sum looked at
            raise VolumeError(f"{path}: {claims}, the file holds more")
        slope, inter = volume.header.get_slope_inter()
    scaling = (1.0 if slope is None else slope, 0.0 if inter is None else inter)
    spec = (volume.header.get_data_shape(), volume.header.get_data_dtype(), volume.offset, *scaling)
    return volume, ArrayProxy(io.BytesIO(b"".join(pieces)), spec)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a file; whatever a library makes of a stranger's bytes is a VolumeError that names it."""
    packed = path.name.lower().endswith(".gz")
    try:
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(0)
            if wrong := _wrong_kind(start, packed):
                raise VolumeError(f"{path}: {wrong}")
            if not packed:
                yield file
                return
            with gzip.open(file) as unpacked:
                yield unpacked  # type: ignore[misc]
    except VolumeError:
        raise
    except MemoryError as error:
        raise VolumeError(f"{path}: this machine has not enough memory for it") from error
    except Exception as error:
        kind = "truncated or damaged gzip file" if packed else "not a readable NIfTI file"
        raise VolumeError(f"{path}: {kind} ({error})") from error


def _wrong_kind(start: bytes, packed: bool) -> str:
    """What is wrong with a file that begins so, "" if nothing: no volume, or one of another kind than it is called."""
    if start.startswith(_POINTERS):
        return (
            "a pointer of Git LFS or git-annex, not the file itself; fetch it (git lfs pull, git annex get)"
        )
    if start.startswith(_GZIP) and not packed:
        return "its content is gzip, its name says otherwise; rename it to end in .nii.gz"
    if packed and start.startswith(_SIZES):
        return "its content is not gzip, its name says otherwise; rename it to end in .nii"
    if packed and not start.startswith(_GZIP):
        return f"no gzip file, though its name says so; it begins with {start[:16]!r}"
    return ""


def _head(path: Path, stream: IO[bytes], bounds: Bounds) -> tuple[Volume, bytes]:
    """Header of a stream, and its bytes."""
    first = stream.read(4)
    second = first in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    kind = nib.Nifti2Header if second else nib.Nifti1Header
    first += stream.read(kind.template_dtype.itemsize - 4)
    try:
        header = kind(first)
        affine = np.asarray(header.get_best_affine(), float)
        header.get_slope_inter()
        offset = float(header["vox_offset"]) or float(kind.single_vox_offset)
        dtype = header.get_data_dtype()
        shape = tuple(int(n) for n in header.get_data_shape())
    except Exception as error:
        raise VolumeError(f"{path}: not a readable NIfTI file ({error})") from error
    if dtype.kind not in "iuf":  # colours and complex numbers, which no image and no label here is of
        raise VolumeError(f"{path}: voxels are {dtype}, expected one number per voxel")
    if not (len(first) <= offset <= _MAX_BEFORE and offset == int(offset)):
        raise VolumeError(
            f"{path}: its header says that voxels begin at byte {offset:g}, expected a place behind it"
        )
    voxels = _check_shape(path, shape, bounds)
    size = int(offset) + voxels * dtype.itemsize
    packed = path.name.lower().endswith(".gz")
    _check_length(path, shape, size, packed)
    return Volume(header, affine, shape, int(offset), size), first


def _check_shape(path: Path, shape: tuple[int, ...], bounds: Bounds) -> int:
    """Number of voxels of a shape that can be."""
    if not shape or min(shape) < 1:
        raise VolumeError(f"{path}: its header claims the shape {shape}, expected sides of 1 or more voxels")
    voxels = math.prod(shape)
    if voxels > bounds.max_voxels:
        raise VolumeError(
            f"{path}: its header claims {shape}, that is {voxels} voxels, more than "
            f"{bounds.group}max_voxels={bounds.max_voxels}"
        )
    return voxels


def _check_length(path: Path, shape: tuple[int, ...], size: int, packed: bool) -> None:
    there = path.stat().st_size
    claims = f"its header claims {shape}, that is {size} bytes"
    if not packed and there < size:
        raise VolumeError(f"{path}: truncated, {claims}, the file holds {there}")
    if not packed and there > size:
        raise VolumeError(f"{path}: {claims}, the file holds more ({there})")
    if packed and there * _DEFLATE < size:
        raise VolumeError(f"{path}: truncated, {claims}, {there} packed bytes cannot become so many")

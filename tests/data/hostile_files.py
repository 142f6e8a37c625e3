"""Volumes that would exhaust or crash whoever believes them, made in milliseconds."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.data.brats_files import AFFINE, image


def claim(kind: type = nib.Nifti1Header, **fields: object) -> bytes:
    """A header and the 4 bytes behind it, with some fields changed behind nibabel's back."""
    header = nib.Nifti1Image(image(1), AFFINE).header
    header = kind.from_header(header)
    header["vox_offset"] = kind.single_vox_offset
    header["magic"] = kind.single_magic
    for key, value in fields.items():
        header[key] = value
    return bytes(header.binaryblock) + bytes(4)


def dim(*sides: int) -> list[int]:
    return [len(sides), *sides, *[1] * (7 - len(sides))]


def _packed(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(gzip.compress(content)) and None


def _plain(content: bytes) -> Callable[[Path], None]:
    """In the place of a packed file, under the name of a plain one."""

    def write(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix("").write_bytes(content)

    return write


def _bomb(path: Path) -> None:
    """8 GB in 8 MB: a thousand times the same packed 8 MB of zeros, behind an honest small volume."""
    path.write_bytes(gzip.compress(claim() + image(1).tobytes("F")) + gzip.compress(bytes(2**23)) * 1000)


def _sparse(path: Path) -> None:
    _plain(claim(dim=dim(30000, 30000, 30000)))(path)
    with path.with_suffix("").open("r+b") as file:
        file.truncate(2**40)


def _link(path: Path) -> None:
    """To a good volume beside the data set."""
    there = path.parents[2] / "elsewhere.nii.gz"
    nib.save(nib.Nifti1Image(image(5), AFFINE), there)
    path.unlink(missing_ok=True)
    path.symlink_to(there)


VOXELS = image(1).tobytes("F")
TURNED = {"srow_x": [1e30, 0, 0, 0], "sform_code": 1}
# name -> writes the file, what is said of it
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "bomb": (_bomb, r"1360 bytes, the file holds more"),
    "billions": (
        _packed(claim(dim=dim(2000, 2000, 2000)) + VOXELS),
        r"8000000000 voxels, more than data\.max_voxels=134217728",
    ),
    "30000": (
        _packed(claim(dim=dim(30000, 30000, 30000))),
        r"27000000000000 voxels, more than data\.max_voxels",
    ),
    "nifti2": (
        _packed(claim(nib.Nifti2Header, dim=dim(2**40, 2**40, 2**40))),
        r"voxels, more than data\.max",
    ),
    "channels": (
        _packed(claim(dim=dim(8, 9, 7, 32000, 32000)) + VOXELS),
        r"voxels, more than data\.max_voxels",
    ),
    "unpackable": (
        _packed(claim(dim=dim(500, 500, 500))),
        r"250000352 bytes, \d+ packed bytes cannot become",
    ),
    "short": (
        _packed(claim() + VOXELS[:-2]),
        r"truncated, its header claims .* 1360 bytes, the file holds 1358",
    ),
    "negative": (_packed(claim(dim=dim(8, -9, 7)) + VOXELS), r"claims the shape \(8, -9, 7\)"),
    "nothing": (_packed(claim(dim=dim(8, 0, 7)) + VOXELS), r"claims the shape \(8, 0, 7\)"),
    "no sides": (_packed(claim(dim=[0] * 8) + VOXELS), r"(claims the shape|not a readable NIfTI)"),
    "far": (_packed(claim(vox_offset=1e30) + VOXELS), r"voxels begin at byte 1e\+30"),
    "nan": (_packed(claim(vox_offset=np.nan) + VOXELS), r"voxels begin at byte nan"),
    "inf": (_packed(claim(vox_offset=np.inf) + VOXELS), r"voxels begin at byte inf"),
    "before": (_packed(claim(vox_offset=-16) + VOXELS), r"(voxels begin at byte -16|not a readable NIfTI)"),
    "datatype": (_packed(claim(datatype=77) + VOXELS), r"not a readable NIfTI"),
    "colours": (
        _packed(claim(datatype=128, bitpix=24) + 3 * VOXELS),
        r"voxels are .*expected one number per voxel",
    ),
    "complex": (
        _packed(claim(datatype=32, bitpix=64) + 4 * VOXELS),
        r"voxels are complex64, expected one number",
    ),
    "turned": (_packed(claim(**TURNED) + VOXELS), r"the affine "),
    "zeros": (_packed(bytes(2**20)), r"not a readable NIfTI"),
    "text": (_packed(b"no volume"), r"not a readable NIfTI"),
    "pointer": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid") and None,
        "a pointer of Git LFS",
    ),
    "no gzip": (lambda path: path.write_bytes(claim() + VOXELS) and None, r"not gzip.* end in \.nii$"),
    "gzip": (_plain(gzip.compress(claim() + VOXELS)), r"gzip, .* end in \.nii\.gz"),
    "sparse": (_sparse, r"1099511627776 bytes, more than any volume within data\.max_voxels"),
    "half": (_plain(claim() + VOXELS[:-1]), r"truncated, .* 1360 bytes, the file holds 1359"),
    "tail": (_plain(claim() + VOXELS + b"!"), r"1360 bytes, the file holds more \(1361\)"),
    "link": (_link, r"a link that leaves .*elsewhere\.nii\.gz\); copy the file, or set data\.links=follow"),
}


def written(kind: str, path: Path) -> Path:
    """Write one of `HOSTILE` in the place of `path` (.nii.gz); where it lies."""
    HOSTILE[kind][0](path)
    return path if path.exists() else path.with_suffix("")

"""Cases in their cubes on disk: files that every command reads as any other case, and beside them the way back.

<folder>/<case>/<case>_t1.nii.gz ... <case>_flair.nii.gz, <case>_seg.nii.gz     in the cube
<folder>/<case>/map.npz                                                        `Transport` and the case's own space
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fedbrats.data.nifti import Source, canonical_affine, canonical_shape, read_volume, write_labels
from fedbrats.data.regions import whole_labels
from fedbrats.data.stream import Bounds
from fedbrats.data.transport import Transport
from fedbrats.files import replacing
from fedbrats.inference.maps import write_map

MAP = "map.npz"
_ARRAYS = ("brain", "cell", "voxel")
_NEAR = 0.01  # mm, between affines of one cube


def cube_source(millimetres: float, size: int) -> Source:
    """The space of a cube that holds a brain of so many cubic millimetres: RAS, from the origin, equal sides."""
    side = millimetres ** (1 / 3) / size
    affine = np.diag([side, side, side, 1.0])
    return Source((size,) * 3, affine.tolist(), "RAS", qform_code=1, sform_code=1, units=2)


def write_cubes(
    folder: Path, case: str, found: Transport, volumes: Mapping[str, np.ndarray], own: Source, cube: Source
) -> None:
    """Write a case in its cube, and its map.

    Args:
        folder: of this case, made if missing.
        case: its name.
        found: its map.
        volumes: modalities, and the label as "seg", on the grid of the case [X, Y, Z].
        own: space of the case.
        cube: space of the cube, see `cube_source`.
    """
    for kind, volume in volumes.items():
        path, inside = folder / f"{case}_{kind}.nii.gz", found.to_cube(volume)
        if kind == "seg":
            write_labels(path, whole_labels(inside), cube)
        else:
            write_map(path, inside.astype(np.float32), cube)
    about = {"own": asdict(own), "cube": asdict(cube), "costs": found.costs}
    about |= {key: getattr(found, key) for key in ("turning", "mass_error", "steps")}
    arrays = {name: getattr(found, name) for name in _ARRAYS}
    with replacing(folder / MAP) as unfinished, unfinished.open("wb") as stream:
        np.savez_compressed(stream, about=np.array(json.dumps(about)), **arrays)


def read_map(file: Path) -> tuple[Transport, Source, Source]:
    """The map of a case, the space of the case and that of its cube.

    Raises:
        ValueError: the file is missing or is no map; it is named.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            brain, cell, voxel = (stored[name] for name in _ARRAYS)
        own, cube = (Source(**{**about[key], "shape": tuple(about[key]["shape"])}) for key in ("own", "cube"))
        shape, size = canonical_shape(own), cube.shape[0]
        facts = {key: about[key] for key in ("turning", "mass_error", "steps")}
        found = Transport(shape, size, brain, cell, voxel, (about["costs"][0], about["costs"][1]), **facts)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: no map of a case, as fedbrats transport writes it ({error})") from error
    voxels, cells = int(np.prod(shape)), size**3
    for name, array, length, most in (
        ("brain", brain, len(cell), voxels),
        ("cell", cell, len(brain), cells),
        ("voxel", voxel, cells, voxels),
    ):
        if array.dtype != np.int32 or array.shape != (length,) or array.min() < 0 or array.max() >= most:
            raise ValueError(f"{file}: {name} does not fit a cube of {size} and a case of {shape}")
    return found, own, cube


def bring_back(labels: Path, file: Path, bounds: Bounds, target: Path) -> None:
    """Write labels that were given in the cube on the grid of the case, in its own space.

    Args:
        labels: label file in the cube, in the numbers of the case.
        file: the map of the case.
        bounds: how large a file may be and where it may lie.
        target: `.nii.gz`.

    Raises:
        ValueError: a file that cannot be used, or labels that do not lie on the grid of the cube.
    """
    found, own, cube = read_map(file)
    voxels, source = read_volume(labels, None, bounds)
    near = np.abs(canonical_affine(source) - canonical_affine(cube)).max() <= _NEAR
    if voxels.shape != cube.shape or not near:
        raise ValueError(
            f"{labels}: does not lie on the cube of {file} ({found.size} voxels a side); expected labels of the cubes"
        )
    write_labels(target, found.from_cube(whole_labels(voxels)), own)

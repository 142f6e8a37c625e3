"""A case of a few voxels, written as BraTS files, for the tests of the cache."""

from pathlib import Path

import nibabel as nib
import numpy as np

from fedbrats.data.cases import MODALITIES, Case, ImageFile

SHAPE = (12, 14, 10)
BRAIN = (slice(2, 9), slice(3, 11), slice(1, 8))
AFFINE = np.diag([2.0, 1.0, 1.5, 1.0])  # voxels of 3 mm^3


def make_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Four modalities and a label in RAS order; T2 and FLAIR end one voxel before T1 and T1ce."""
    rng = np.random.default_rng(seed)
    arrays = {name: np.zeros(SHAPE, np.int16) for name in MODALITIES}
    for name in MODALITIES:
        arrays[name][BRAIN] = rng.integers(1, 1000, arrays[name][BRAIN].shape)
    arrays["t2"][8] = arrays["flair"][8] = 0
    arrays["seg"] = np.zeros(SHAPE, np.uint8)
    arrays["seg"][4:7, 5:8, 3:6] = 2  # 27 voxels in all: 18 ED, 5 NCR, 4 ET
    arrays["seg"][4, 5:8, 3:6].flat[:5] = 1
    arrays["seg"][5, 5, 3:6] = 4
    arrays["seg"][5, 6, 3] = 4
    return arrays


def write_case(folder: Path, name: str, arrays: dict[str, np.ndarray], affine: np.ndarray = AFFINE) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind, array in arrays.items():
        path = folder / f"{name}_{kind}.nii.gz"
        nib.save(nib.Nifti1Image(array, affine), path)
        files[kind] = ImageFile(path)
    label = files.pop("seg", None)
    return Case(name, files, label, "brats2017-2021")

"""Small cases as files, for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

OLD = {"t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "flair": "_flair", "seg": "_seg"}
NEW = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"}
SHAPE = (8, 9, 7)
AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # LPS, as BraTS


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def image(seed: int) -> np.ndarray:
    """Voxels 1 to 999, and one of background."""
    voxels = np.random.default_rng(seed).integers(1, 1000, SHAPE).astype(np.int16)
    voxels[0, 0, 0] = 0
    return voxels


def segmentation(numbers: tuple[int, ...] = (1, 2, 4)) -> np.ndarray:
    data = np.zeros(SHAPE, np.uint8)
    for i, number in enumerate(numbers):
        data[2 + i, 3:6, 2:5] = number
    return data


def write_case(
    root: Path,
    name: str,
    numbers: tuple[int, ...] = (1, 2, 4),
    endings: dict[str, str] = OLD,
    seed: int | None = None,
    suffix: str = ".nii.gz",
    flat: bool = False,
) -> Path:
    """Write one case and return its folder; the images differ from those of any other name."""
    folder = root if flat else root / name
    first = sum(map(ord, name)) * 10 if seed is None else seed
    for i, modality in enumerate(("t1", "t1ce", "t2", "flair")):
        save(folder / f"{name}{endings[modality]}{suffix}", image(first + i))
    save(folder / f"{name}{endings['seg']}{suffix}", segmentation(numbers))
    return folder


def write_decathlon(root: Path, names: tuple[str, ...], labels: dict[str, str]) -> None:
    """Write Task01 with channels in the Decathlon's own order and values that tell them apart."""
    training = []
    for name in names:
        channels = np.stack([image(sum(map(ord, name)) + 100 * c) for c in range(4)], -1)
        save(root / "imagesTr" / f"{name}.nii.gz", channels)
        save(root / "labelsTr" / f"{name}.nii.gz", segmentation((1, 2, 3)))
        (root / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"finder")
        training.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    content = {"modality": modality, "labels": labels, "training": training, "test": []}
    (root / "dataset.json").write_text(json.dumps(content))

"""Small cases as files, and the prediction of a folder of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from fedbrats.commands.predict import predict_cases as module
from fedbrats.commands.predict.arguments import read_arguments
from fedbrats.data.cases import MODALITIES

SHAPE = (20, 22, 18)
AFFINE = np.array([[1.0, 0.1, 0, -40], [-0.1, 1.0, 0, 17], [0, 0, 2.5, 5], [0, 0, 0, 1]])
NEW = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"}


def volumes(seed: int = 0) -> dict[str, np.ndarray]:
    """Four images int16 with a round brain and a segmentation uint8 (1, 2, 4), RAS."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    brain = x**2 + y**2 + z**2 < 0.9
    images = {m: np.where(brain, rng.integers(50, 900, SHAPE), 0).astype(np.int16) for m in MODALITIES}
    seg = np.zeros(SHAPE, np.uint8)
    seg[5:12, 8:15, 6:12] = 2
    seg[7:10, 10:13, 8:10] = 4
    seg[8, 11, 8] = 1
    return {**images, "seg": seg}


def write_case(root: Path, name: str, *, seed: int = 0, codes: str = "RAS", label: bool = True) -> Path:
    """Write one case, stored in the orientation `codes`; a BraTS-GLI name gets the files and labels of 2023."""
    new = name.startswith("BraTS-GLI")
    folder = root / name
    folder.mkdir(parents=True)
    for kind, volume in volumes(seed).items():
        if kind == "seg" and not label:
            continue
        if kind == "seg" and new:
            volume = np.where(volume == 4, 3, volume).astype(np.uint8)
        image = nib.Nifti1Image(volume, AFFINE)
        change = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
        ending = NEW[kind] if new else f"_{kind}"
        nib.save(image.as_reoriented(change), folder / f"{name}{ending}.nii.gz")
    return folder


def predict(
    model: Path | str, data: Path, output: Path, *more: str, drawn: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """`cases.csv` by case, and what was said; figures and report, which take longer than all else, if `drawn`."""
    lines: list[str] = []
    arguments = [f"checkpoint={model}", f"data={data}", f"output={output}", *more]
    with pytest.MonkeyPatch.context() as patch:
        for name in () if drawn else ("write_uncertainty_figures", "write_prediction_report"):
            patch.setattr(module, name, lambda folder: None)
        module.predict_cases(read_arguments(arguments), lines.append)
    return pd.read_csv(output / "cases.csv", keep_default_na=False).set_index("case"), lines


def labels(file: Path) -> np.ndarray:
    return np.asarray(nib.load(file).dataobj)


def masks(voxels: np.ndarray, et: int = 4) -> dict[str, np.ndarray]:
    return {"WT": voxels > 0, "TC": (voxels == 1) | (voxels == et), "ET": voxels == et}

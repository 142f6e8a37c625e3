"""Run folders made by hand, with untrained networks that nonetheless predict something, and small cases as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from fedbrats.command import register_with_hydra
from fedbrats.config import Config, save_config, typed
from fedbrats.data.cases import MODALITIES
from fedbrats.data.regions import BRATS_2017
from fedbrats.federation.checkpoint import Model, save_best, save_checkpoint
from fedbrats.inference.arguments import read_arguments
from fedbrats.inference.predict_cases import predict_cases
from fedbrats.initial import initial_arrays
from fedbrats.settings import settle
from tests.tiny import OVERRIDES, ROOT, tiny

SHAPE = (20, 22, 18)
AFFINE = np.array([[1.0, 0.1, 0, -40], [-0.1, 1.0, 0, 17], [0, 0, 2.5, 5], [0, 0, 0, 1]])
NEW = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"}


def compose_run(cache: Path, model: str | None, overrides: Sequence[str]) -> Config:
    """The settled configuration of a tiny run, with another model on request."""
    if model is None:
        return settle(typed(tiny(cache, *overrides)))
    common = [o for o in OVERRIDES if not o.startswith(("model", "train"))]
    chosen = [f"model={model}", "model.size=small", *common, f"data.cache={cache}", *overrides]
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settle(typed(compose("config", overrides=chosen)))


def make_run(
    folder: Path,
    *overrides: str,
    model: str | None = None,
    arms: Mapping[str, int] | None = None,
    rounds: int = 2,
) -> Config:
    """A run folder of `arms` (name -> seed of its weights) after `rounds` rounds, the first of which was the best.

    The weights of round r and arm seed s come from seed 100 s + r. A prior of 0.5 lets them predict some of everything.
    """
    config = compose_run(folder.parent / "cache", model, ["model.prior=0.5", *overrides])
    folder.mkdir(parents=True)
    save_config(config, folder / "config.yaml")
    system = asdict(BRATS_2017)
    (folder / "partition.json").write_text(json.dumps({"label_system": system}))
    for round_ in range(1, rounds + 1):
        models = {}
        for arm, seed in (arms or {"federated": 0}).items():
            arrays = initial_arrays(replace(config, seed=100 * seed + round_))
            models[arm] = Model(arrays, best_round=1, best_score=0.5)
            if round_ == 1:
                save_best(folder / "checkpoints", arm, arrays)
        save_checkpoint(folder / "checkpoints", round_, models, keep=rounds)
    return config


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


def predict(model: Path | str, data: Path, output: Path, *more: str) -> tuple[pd.DataFrame, list[str]]:
    """`cases.csv` by case, and what was said."""
    lines: list[str] = []
    arguments = [f"checkpoint={model}", f"data={data}", f"output={output}", *more]
    predict_cases(read_arguments(arguments), ROOT / "conf", lines.append)
    return pd.read_csv(output / "cases.csv", keep_default_na=False).set_index("case"), lines


def labels(file: Path) -> np.ndarray:
    return np.asarray(nib.load(file).dataobj)


def masks(voxels: np.ndarray, et: int = 4) -> dict[str, np.ndarray]:
    return {"WT": voxels > 0, "TC": (voxels == 1) | (voxels == et), "ET": voxels == et}

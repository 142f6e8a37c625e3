"""One volume stored in several orientations gives one segmentation in world space.

Two challenge entries lost everything to this: BraTS files come as LPI, RAI and others. The whole way is taken, from
files on disk through the cache and the network to a prediction written in each file's own space.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from fedbrats.config.schema import InferenceConfig, InputConfig
from fedbrats.data.cache import prepare_case, restore
from fedbrats.data.cases import MODALITIES
from fedbrats.data.family_table import BRATS_2017
from fedbrats.data.finding import find_cases
from fedbrats.data.nifti import Source, write_labels
from fedbrats.data.regions import to_source
from fedbrats.inference.predict import predict
from fedbrats.models.networks.residual_unet import residual_unet
from fedbrats.seeding import seed_torch
from fedbrats.tasks.segmentation import labels_from_probabilities

SHAPE = (26, 30, 22)
AFFINE = np.array([[1.0, 0.1, 0, -40], [-0.1, 1.0, 0, 17], [0, 0, 2.5, 5], [0, 0, 0, 1]])


def _volumes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    brain = x**2 + y**2 + z**2 < 0.9
    images = {m: np.where(brain, rng.integers(50, 900, SHAPE), 0).astype(np.int16) for m in MODALITIES}
    seg = np.zeros(SHAPE, np.uint8)
    seg[5:12, 8:15, 6:12] = 2
    seg[7:10, 10:13, 8:10] = 4
    return {**images, "seg": seg}


def _stored(folder: Path, codes: str) -> Path:
    """The same case on disk in the orientation `codes` (nibabel's: the directions that the axes point to)."""
    for kind, volume in _volumes().items():
        image = nibabel.Nifti1Image(volume, AFFINE)
        change = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
        file = folder / "BraTS19_TCIA01_1_1" / f"BraTS19_TCIA01_1_1_{kind}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image.as_reoriented(change), file)
    return folder


def _segment(root: Path) -> Path:
    """Segment the case below `root` with one fixed network and write the prediction in its own space."""
    case = prepare_case(find_cases(root)[0], BRATS_2017, root / "cache")
    seed_torch(0, "orientation")
    network = residual_unet(channels=(8, 16), norm="batch", prior=0.5).eval()
    found = predict(
        network,
        np.asarray(case.image),
        rules=InputConfig(patch=[16, 16, 16]),
        inference=InferenceConfig(overlap=0.25),
        window=[16, 16, 16],
        device=torch.device("cpu"),
    )
    labels = to_source(restore(labels_from_probabilities(found.probabilities), case), BRATS_2017)
    source = case.meta["source"]
    file = root / "prediction.nii.gz"
    write_labels(file, labels, Source(**{**source, "shape": tuple(source["shape"])}))
    assert asdict(Source(**source))["orientation"] == source["orientation"]
    return file


def _in_world(file: Path) -> dict[tuple[float, ...], int]:
    """World position of every labelled voxel, in mm to 0.01, and its label."""
    image = nibabel.load(file)
    data = np.asarray(image.dataobj)
    voxels = np.argwhere(data > 0)
    positions = nibabel.affines.apply_affine(image.affine, voxels).round(2) + 0.0
    return {tuple(p): int(data[tuple(v)]) for p, v in zip(positions.tolist(), voxels, strict=True)}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[float, ...], int]:
    """The segmentation of the case as it is stored first."""
    return _in_world(_segment(_stored(tmp_path_factory.mktemp("ras"), "RAS")))


# RAI and LPI name the directions the axes come from, so they are LPS and RAS-like codes here; all axes permuted too.
@pytest.mark.parametrize("codes", ["LPS", "RAI", "LPI", "ASR", "SPL", "IRA"])
def test_every_orientation_gives_the_same_segmentation(
    codes: str, expected: dict[tuple[float, ...], int], tmp_path: Path
) -> None:
    file = _segment(_stored(tmp_path, codes))
    prediction = nibabel.load(file)
    assert "".join(nibabel.aff2axcodes(prediction.affine)) == codes
    assert len(expected) > 500
    assert len(set(expected.values())) == 3
    assert _in_world(file) == expected

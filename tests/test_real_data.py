"""The main job on the eight real BraTS cases of five institutions, where they are at hand."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from tiny import ROOT

from fedbrats.command import register_with_hydra
from fedbrats.run import run

REAL = os.environ.get("FEDBRATS_REAL_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: UPENN mapped by a table, TCIA13 and UPENN held out."""
    home = tmp_path_factory.mktemp("real")
    table = home / "institutions.csv"
    table.write_text("case,institution\nUPENN-GBM-00006_11,UPENN\n")
    overrides = [
        "data=brats",
        f"data.root={REAL}/brats",
        f"data.cache={home / 'cache'}",
        f"partition.table={table}",
        "partition.holdout=[TCIA13,UPENN]",
        "strategy=fedprox",
        "model=residual_unet_small",
        "model.norm=batch",
        "train=small",
        "train.patch=[64,64,64]",
        "train.local_steps=6",
        "train.keep_optimizer=true",
        "inference.overlap=0.0",
        "report=predictions",
        "arms=[federated]",
        "rounds=3",
        "runtime.workers=2",
    ]
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=overrides)
    return run(config, home / "run")


def test_the_loss_falls(folder: Path) -> None:
    with (folder / "rounds.csv").open(newline="") as handle:
        losses = [float(r["loss"]) for r in csv.DictReader(handle) if r["phase"] == "round"]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 0.05


def test_five_institutions_two_of_them_unseen(folder: Path) -> None:
    partition = json.loads((folder / "partition.json").read_text())
    holdout = {site["name"]: site["holdout"] for site in partition["sites"]}
    assert holdout == {"TCIA01": False, "TCIA02": False, "TCIA10": False, "TCIA13": True, "UPENN": True}
    assert "label 4" in partition["et_recognised"]
    report = (folder / "report.html").read_text()
    assert all(name in report for name in holdout)


def test_predictions_lie_on_the_grid_of_their_source(folder: Path) -> None:
    files = sorted((folder / "predictions" / "federated").rglob("*.nii.gz"))
    assert len(files) == 5
    for file in files:
        case = file.name.removesuffix(".nii.gz")
        source = nibabel.load(Path(str(REAL)) / "brats" / case / f"{case}_flair.nii.gz")
        prediction = nibabel.load(file)
        assert prediction.shape == source.shape
        np.testing.assert_allclose(prediction.affine, source.affine)
        assert nibabel.aff2axcodes(prediction.affine) == nibabel.aff2axcodes(source.affine)
        assert set(np.unique(np.asarray(prediction.dataobj))) <= {0, 1, 2, 4}

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

from fedbrats.commands.compose import register_with_hydra
from fedbrats.commands.run.run import run
from fedbrats.privacy.accounting import gaussian_epsilon
from tests.tiny import ROOT

REAL = os.environ.get("FEDBRATS_REAL_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


def real_run(home: Path, name: str, *more: str) -> Path:
    """A finished run: UPENN mapped by a table, TCIA13 and UPENN held out."""
    table = home / "institutions.csv"
    table.write_text("case,institution\nUPENN-GBM-00006_11,UPENN\n")
    overrides = [
        "data=brats",
        f"data.root={REAL}/brats",
        f"data.cache={home / 'cache'}",
        f"partition.table={table}",
        "partition.holdout=[TCIA13,UPENN]",
        "model=residual_unet",
        "model.size=small",
        "train=small",
        "train.patch=[48,48,48]",
        "train.keep_optimizer=true",
        "inference.overlap=0.0",
        "arms=[federated]",
        "runtime.workers=2",
        *more,
    ]
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=overrides)
    return run(config, home / name)


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    batch = ("model.norm=batch", "train.local_steps=6", "rounds=3", "runtime.evaluate_every=3")
    return real_run(home, "run", "strategy=fedprox", *batch, "report=predictions")


def test_the_loss_falls(folder: Path) -> None:
    with (folder / "rounds.csv").open(newline="") as handle:
        losses = [float(r["loss"]) for r in csv.DictReader(handle) if r["phase"] == "round"]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 0.05


def test_five_institutions_two_of_them_unseen(folder: Path) -> None:
    partition = json.loads((folder / "partition.json").read_text())
    holdout = {site["name"]: site["holdout"] for site in partition["sites"]}
    assert holdout == {"TCIA01": False, "TCIA02": False, "TCIA10": False, "TCIA13": True, "UPENN": True}
    assert (
        "BraTS 2017 to 2021 (NCR 1, ED 2, ET 4) by the names of 7 cases; UPENN-GBM"
        in partition["et_recognised"]
    )
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


@pytest.mark.long
def test_one_or_two_patients_of_a_site_cannot_be_private_and_the_report_says_why(home: Path) -> None:
    private = ("privacy=dp_sgd", "privacy.target_epsilon=null", "privacy.sigma=1", "report.select=last")
    shared = ("partition.test=0", "partition.val=0", "model.norm=group", "train.local_steps=3", "rounds=2")
    folder = real_run(home, "private", *private, *shared)
    sites = json.loads((folder / "privacy.json").read_text())["sites"]
    assert {name: site["patients"] for name, site in sites.items()} == {"TCIA01": 2, "TCIA02": 2, "TCIA10": 2}
    for site in sites.values():
        assert site["sample_rate"] == 1.0  # four are expected, two are there: everybody is in every step
        assert site["epsilon"] == pytest.approx(gaussian_epsilon(6**0.5, 1e-5))  # 13.3
    page = (folder / "report.html").read_text()
    assert "everyone is in every step" in page
    assert "a weak formal guarantee" in page

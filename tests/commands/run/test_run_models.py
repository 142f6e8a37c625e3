"""Real federations of other kinds of networks: slices, one region, classes, a localiser, fitted post-processing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fedbrats.commands.run.run import run
from fedbrats.config.schema import load_config
from fedbrats.config.targets import ConfigError
from tests.tiny import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]  # whole runs

ONE_ARM = "arms=[federated]"
WHOLE = (
    "model=jonsson_resunet",
    "model.size=small",
    "model.widths=[4,8,8,8,8]",
    "train.patch=[32,32]",
    "train.batch=4",
)
CLASSES = (
    "model=residual_encoder",
    "model.size=small",
    "model.width=4",
    "train.patch=[40,40]",
    "train.batch=4",
)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2D network that predicts the whole tumour only, with Monte Carlo dropout, all three planes and a report."""
    folder = tmp_path_factory.mktemp("whole")
    extra = ("inference.mc_passes=2", "+model.input.planes=[axial,coronal,sagittal]", "report.html=true")
    return run(tiny(cache, ONE_ARM, *extra, model=WHOLE), folder)


def test_a_region_that_is_not_predicted_is_not_scored(whole: Path) -> None:
    assert {row["region"] for row in rows_of(whole / "cases.csv")} == {"WT"}
    rounds = [r for r in rows_of(whole / "rounds.csv") if r["phase"] in ("val", "test")]
    assert rounds
    assert all(r["dice_wt"] and not r["dice_tc"] and not r["dice_et"] for r in rounds)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["arms"]["federated"]["all"].keys() == {"WT"}
    assert (whole / "report.html").stat().st_size > 10_000


def test_every_test_case_has_its_uncertainty(whole: Path) -> None:
    cases = {(r["site"], r["case"]) for r in rows_of(whole / "cases.csv")}
    rows = rows_of(whole / "uncertainty.csv")
    assert {(r["site"], r["case"]) for r in rows} == cases
    assert all(0 <= float(r["uncertainty"]) <= 1 for r in rows)


def test_reliability_counts_every_brain_voxel_of_a_site_once(whole: Path, cache: Path) -> None:
    voxels: dict[str, float] = {}
    for row in rows_of(whole / "reliability.csv"):
        voxels[row["site"]] = voxels.get(row["site"], 0) + float(row["voxels"])
        assert float(row["bin_low"]) - 1e-6 <= float(row["mean_probability"]) <= float(row["bin_high"]) + 1e-6
    for site, found in voxels.items():
        cases = json.loads((whole / "sites" / site / "cases.json").read_text())["test"]
        images = [np.load(Path(case["folder"]) / "image.npy") for case in cases]
        assert found == sum(int((image != 0).any(0).sum()) for image in images)


def test_networks_on_slices_are_deterministic_whatever_the_workers(
    whole: Path, cache: Path, tmp_path: Path
) -> None:
    extra = ("inference.mc_passes=2", "+model.input.planes=[axial,coronal,sagittal]")
    again = run(tiny(cache, ONE_ARM, *extra, "runtime.workers=2", model=WHOLE), tmp_path / "run")
    for name in ("cases.csv", "uncertainty.csv", "reliability.csv"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    models = "checkpoints/round_00002/federated.safetensors"
    assert (again / models).read_bytes() == (whole / models).read_bytes()


def test_classes_with_histograms_of_each_site_and_fitted_steps(cache: Path, tmp_path: Path) -> None:
    """Four classes by softmax, histogram matching, nnSegNet's two steps fitted at the sites, the median for all."""
    folder = run(tiny(cache, ONE_ARM, "postprocess=nnsegnet", model=CLASSES), tmp_path / "run")
    described = json.loads((folder / "postprocess.json").read_text())["federated"]
    assert [step["step"] for step in described] == ["SequentialThresholds", "InsideBrain", "EtSuppression"]
    for step in described:
        for name, value in step["parameters"].items():
            by_site = [values[name] for values in step["sites"].values()]
            assert len(by_site) >= 1
            assert value == pytest.approx(float(np.median(by_site)))
    fits = [r for r in rows_of(folder / "rounds.csv") if r["phase"] == "fit"]
    assert {r["site"] for r in fits} == set(described[0]["sites"])
    assert {r["status"] for r in fits} == {"ok"}
    steps, cases = rows_of(folder / "steps.csv"), rows_of(folder / "cases.csv")
    assert len(steps) == 4 * len([row for row in cases if row["arm"] != "floor"])
    final = {(r["site"], r["case"], r["region"]): float(r["dice"]) for r in steps if r["order"] == "3"}
    assert final == {(r["site"], r["case"], r["region"]): pytest.approx(float(r["dice"])) for r in cases}
    assert all(r["changed_voxels"] == "0" for r in steps if r["order"] == "0")


def test_a_localiser_shows_the_refiner_where_to_look(whole: Path, cache: Path, tmp_path: Path) -> None:
    extra = (f"inference.locate={whole}", "inference.locate_crop=[16,16,16]", "inference.flips=true")
    folder = run(tiny(cache, ONE_ARM, *extra, "report.predictions=true"), tmp_path / "run")
    assert {row["status"] for row in rows_of(folder / "cases.csv")} == {"ok"}
    import nibabel

    files = [
        f for f in (folder / "predictions").rglob("*.nii.gz") if "floor" not in f.relative_to(folder).parts
    ]
    assert files
    for file in files:
        filled = np.argwhere(np.asarray(nibabel.load(file).dataobj) > 0)
        if (
            len(filled) and len(filled) < 16**3
        ):  # an untrained localiser may find nothing, then all is refined
            assert (filled.max(0) - filled.min(0) < 16).all()


def test_a_localiser_that_has_seen_the_test_cases_is_refused(
    whole: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"inference\.locate=.*trained on patients of \d+ of the cases"):
        run(tiny(cache, ONE_ARM, f"inference.locate={whole}", "partition.seed=5"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"inference\.locate=.*no such folder"):
        run(tiny(cache, ONE_ARM, f"inference.locate={tmp_path / 'none'}"), tmp_path / "other")


def test_the_rate_falls_when_the_validation_loss_does_not(cache: Path, tmp_path: Path) -> None:
    """The first rounds have no history, so only later ones differ from a constant rate."""
    plateau = ("train.schedule=plateau", "train.plateau_patience=0", "train.plateau_factor=0.01", "rounds=3")
    wild = "train.optimizer.lr=0.3"  # the loss rises at once
    falling = run(tiny(cache, ONE_ARM, wild, *plateau), tmp_path / "a")
    constant = run(tiny(cache, ONE_ARM, wild, "train.schedule=constant", "rounds=3"), tmp_path / "b")
    losses = [
        [float(r["loss"]) for r in rows_of(f / "rounds.csv") if r["phase"] == "round"]
        for f in (falling, constant)
    ]
    facts = json.loads((falling / "checkpoints/round_00003/models.json").read_text())["federated"]
    assert len(facts["val_losses"]) == 3
    first, second = facts["val_losses"][:2]
    assert losses[0][:2] == losses[1][:2]
    models = [(f / "checkpoints/round_00003/federated.safetensors").read_bytes() for f in (falling, constant)]
    assert (models[0] == models[1]) == (second < first * (1 - 1e-4))


def test_a_size_that_nobody_chose_is_said_and_recorded(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tiny(cache, "model.size=auto", ONE_ARM, "rounds=1"), tmp_path / "run")
    assert capsys.readouterr().out.startswith("model.size=auto: small, because the heads are phantoms")
    assert load_config(folder / "config.yaml").model["size"] == "small"

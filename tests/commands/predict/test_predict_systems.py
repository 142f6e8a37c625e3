"""Ensembles, networks of slices, localisers, post-processing and histograms through `fedbrats predict`."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.data.intensity import read_reference, write_reference
from fedbrats.data.regions import REGIONS
from fedbrats.metrics.uncertainty import case_uncertainty
from tests.commands.predict.small_cases import labels, masks, predict, write_case
from tests.inference.run_folders import make_run

pytestmark = pytest.mark.slow  # whole runs

MEMBERS = {"federated": 0, "local:A": 1, "local:B": 2}
Alone = tuple[np.ndarray, dict[str, np.ndarray]]  # probabilities, masks


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    make_run(folder, arms=MEMBERS)
    return folder


@pytest.fixture(scope="module")
def alone(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Alone]:
    """What each member says by itself."""
    found, home = {}, tmp_path_factory.mktemp("alone")
    write_case(home / "data", "A")
    for arm in MEMBERS:
        folder = home / arm.replace(":", "-")
        predict(f"{trained}@{arm}", home / "data", folder, "maps=true")
        p = [nib.load(folder / f"A_probability_{r.lower()}.nii.gz").get_fdata() for r in REGIONS]
        found[arm] = (np.stack(p), masks(labels(folder / "A.nii.gz")))
    return found


@pytest.mark.parametrize("how", ["average", "vote", "staple"])
def test_ensembles(how: str, trained: Path, alone: dict[str, Alone], tmp_path: Path) -> None:
    write_case(tmp_path / "data", "A")
    models = f"[{trained},{trained}@local]"
    predict(models, tmp_path / "data", tmp_path / "out", f"inference.combine={how}", "maps=true")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [m["arm"] for m in summary["members"]] == list(MEMBERS)
    p = [nib.load(tmp_path / "out" / f"A_probability_{r.lower()}.nii.gz").get_fdata() for r in REGIONS]
    std = nib.load(tmp_path / "out" / "A_uncertainty_std_wt.nii.gz").get_fdata()
    np.testing.assert_allclose(std, np.std([found[0][0] for found in alone.values()], axis=0), atol=1e-6)
    np.testing.assert_allclose(p, np.mean([found for found, _ in alone.values()], axis=0), atol=1e-6)
    found = masks(labels(tmp_path / "out" / "A.nii.gz"))
    votes = {r: sum(mask[r].astype(int) for _, mask in alone.values()) >= 2 for r in REGIONS}
    if how == "average":
        np.testing.assert_array_equal(found["WT"] | found["TC"], (p[0] > 0.5) | (p[1] > 0.5))
        assert (found["WT"] != votes["WT"]).any()
    if how == "vote":
        for region in REGIONS:
            np.testing.assert_array_equal(found[region], votes[region])
    doubt = pd.read_csv(tmp_path / "out" / "cases.csv").loc[0, "uncertainty_wt"]
    assert doubt == pytest.approx(case_uncertainty(p[0], found["WT"]), abs=1e-4)


def test_a_list_in_the_list_is_one_voice(trained: Path, alone: dict[str, Alone], tmp_path: Path) -> None:
    """Two models averaged and a third: the mean is that of two voices, not of three models."""
    write_case(tmp_path / "data", "A")
    models = f"[[{trained},{trained}@local:A],{trained}@local:B]"
    predict(models, tmp_path / "data", tmp_path / "out", "inference.combine=vote", "maps=true")
    p = np.stack(
        [nib.load(tmp_path / "out" / f"A_probability_{r.lower()}.nii.gz").get_fdata() for r in REGIONS]
    )
    first, second, third = (found for found, _ in alone.values())
    np.testing.assert_allclose(p, (first + second) / 4 + third / 2, atol=1e-6)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (len(summary["members"]), summary["voices"]) == (3, [2, 1])
    one = f"[[{trained},{trained}@local:A]]"
    with pytest.raises(ConfigError, match="there is one voice"):
        predict(one, tmp_path / "data", tmp_path / "one", "inference.combine=staple")


def test_networks_of_two_and_three_dimensions(trained: Path, tmp_path: Path) -> None:
    """Slices on three planes with Monte Carlo dropout, its own normalisation, beside a 3D network."""
    planes = "model.input.planes=[axial,coronal,sagittal]"
    make_run(tmp_path / "slices", planes, "model.input.patch=[40,40]", model="dr_unet104")
    write_case(tmp_path / "data", "A")
    table, _ = predict(
        tmp_path / "slices", tmp_path / "data", tmp_path / "one", "inference.mc_passes=2", "maps=true"
    )
    assert table.loc["A", "status"] == "ok"
    assert (tmp_path / "one" / "A_uncertainty_std_et.nii.gz").exists()
    both = f"[{trained},{tmp_path / 'slices'}]"
    table, _ = predict(both, tmp_path / "data", tmp_path / "both")
    assert table.loc["A", "status"] == "ok"
    windows = json.loads((tmp_path / "both" / "summary.json").read_text())["settings"]["inference"]["window"]
    assert windows is None  # each its own
    with pytest.raises(ConfigError, match=r"mc_passes=2.*no dropout"):
        predict(both, tmp_path / "data", tmp_path / "both", "inference.mc_passes=2")


def test_locate_then_refine(trained: Path, tmp_path: Path) -> None:
    """Outside the crop around what the localiser found there is no tumour, inside it is the refiner's answer."""
    make_run(tmp_path / "localiser", model="localizer")
    write_case(tmp_path / "data", "A")
    crop = ["inference.locate_crop=[8,8,8]", f"inference.locate={tmp_path / 'localiser'}"]
    table, _ = predict(trained, tmp_path / "data", tmp_path / "out", *crop)
    assert table.loc["A", "status"] == "ok"
    assert "larger than the crop 8x8x8" in table.loc["A", "notes"]
    found = np.argwhere(labels(tmp_path / "out" / "A.nii.gz"))
    assert (found.max(0) - found.min(0) < 8).all()
    assert len(found) > 10
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["localiser"]["model"].endswith("localization_unet")


def test_a_network_of_the_whole_tumour_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "localiser", model="localizer")
    write_case(tmp_path / "data", "A")
    table, _ = predict(tmp_path / "localiser", tmp_path / "data", tmp_path / "out", "maps=true")
    assert [c for c in table.columns if c.startswith("volume")] == ["volume_ml_wt"]
    assert set(np.unique(labels(tmp_path / "out" / "A.nii.gz"))) == {0, 2}
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["region"]) == {"WT"}
    with pytest.raises(ConfigError, match=r"needs .*ET.*only WT"):
        predict(tmp_path / "localiser", tmp_path / "data", tmp_path / "out", "postprocess=et_minimum_600")


def test_post_processing_with_what_the_run_fitted(trained: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run", "postprocess=et_minimum")
    write_case(tmp_path / "data", "A")
    with pytest.raises(ConfigError, match=r"to be fitted.*postprocess\.json is not there.*postprocess=none"):
        predict(tmp_path / "run", tmp_path / "data", tmp_path / "out")
    inside = {"step": "InsideBrain", "name": "", "parameters": {}, "sites": {}}
    fitted = {
        "federated": [
            inside,
            {"step": "MinimumVolume", "name": "", "parameters": {"ml": 1000.0}, "sites": {}},
        ]
    }
    (tmp_path / "run" / "postprocess.json").write_text(json.dumps(fitted))
    predict(tmp_path / "run", tmp_path / "data", tmp_path / "plain", "postprocess=none")
    predict(tmp_path / "run", tmp_path / "data", tmp_path / "out")
    assert 4 in labels(tmp_path / "plain" / "A.nii.gz")
    assert 4 not in labels(tmp_path / "out" / "A.nii.gz")
    steps = pd.read_csv(tmp_path / "out" / "steps.csv")
    assert list(steps["order"].unique()) == [0, 1, 2]
    raw = pd.read_csv(tmp_path / "plain" / "scores.csv").set_index("region")
    after = pd.read_csv(tmp_path / "out" / "scores.csv").set_index("region")
    by_order = steps.set_index(["order", "region"])["dice"]
    assert by_order[(0, "ET")] == pytest.approx(raw.loc["ET", "dice"])
    assert by_order[(2, "ET")] == pytest.approx(after.loc["ET", "dice"]) == 0
    fitted["federated"][1]["parameters"] = {"mm": 1.0}
    (tmp_path / "run" / "postprocess.json").write_text(json.dumps(fitted))
    with pytest.raises(ConfigError, match="postprocess of"):
        predict(tmp_path / "run", tmp_path / "data", tmp_path / "out")


def test_histograms_are_matched_to_the_sites_own(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "model.input.normalise=histogram")
    for index, name in enumerate(("A", "B")):
        write_case(tmp_path / "data", name, seed=index)
    (tmp_path / "data" / "B" / "B_t1.nii.gz").write_bytes(b"")  # a bad case is left out of the reference
    table, _ = predict(tmp_path / "run", tmp_path / "data", tmp_path / "own")
    assert table.loc["A", "status"] == "ok"
    reference = tmp_path / "reference.json"
    write_reference(reference, np.tile(np.linspace(-1, 4, 11), (4, 1)))
    assert read_reference(reference).shape == (4, 11)
    predict(tmp_path / "run", tmp_path / "data", tmp_path / "given", f"histogram={reference}")
    assert (labels(tmp_path / "own" / "A.nii.gz") != labels(tmp_path / "given" / "A.nii.gz")).any()

"""Folders of cases through `fedbrats predict`: what is written, where it lies, and what a bad case does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from fedbrats.commands.predict.command import main
from fedbrats.commands.run.run import run
from fedbrats.config.schema import load_config
from fedbrats.data.prepare import data_root
from fedbrats.data.regions import REGIONS
from fedbrats.metrics.overlap import dice
from tests.commands.predict.small_cases import AFFINE, labels, masks, predict, volumes, write_case
from tests.inference.run_folders import make_run
from tests.scored import CASE_COLUMNS
from tests.tiny import tiny

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    make_run(folder)
    return folder


def test_scores_are_those_of_the_run_itself(cache: Path, tmp_path: Path) -> None:
    """The run tested its own cases through Flower; the same model on the same files must score the same."""
    folder = run(tiny(cache, "arms=[federated]", "rounds=1", "model.prior=0.5"), tmp_path / "run")
    data = data_root(load_config(folder / "config.yaml").data, 1, print)
    table, _ = predict(folder, data, tmp_path / "out")
    assert set(table["status"]) == {"ok"}
    columns = ["case", "region", "dice", "hd95", "lesion_dice", "volume_pred_ml"]
    own = pd.read_csv(folder / "cases.csv").query("arm == 'federated'")[columns]
    found = pd.read_csv(tmp_path / "out" / "scores.csv")[columns]
    both = own.merge(found, on=["case", "region"], suffixes=("_run", ""))
    assert len(both) == len(own) > 3
    assert (own["volume_pred_ml"] > 0).any()
    for column in columns[2:]:
        np.testing.assert_allclose(both[column], both[f"{column}_run"], rtol=1e-6)
    doubts = pd.read_csv(folder / "uncertainty.csv").merge(
        pd.read_csv(tmp_path / "out" / "uncertainty.csv"), on=["case", "region"], suffixes=("_run", "")
    )
    np.testing.assert_allclose(doubts["uncertainty"], doubts["uncertainty_run"], rtol=1e-5)
    assert not (tmp_path / "out" / ".cache").exists()  # the run's cache was used


def test_everything_that_is_written(trained: Path, tmp_path: Path) -> None:
    for index in range(2):
        write_case(tmp_path / "data", f"BraTS19_CBICA_{index}_1", seed=index, codes="LPS")
    table, lines = predict(trained, tmp_path / "data", tmp_path / "out", "maps=true", "inference.flips=true")
    assert len(lines) == 3  # one for the folder, one for each case
    ml = float(np.abs(np.linalg.det(AFFINE[:3, :3]))) / 1000
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert tuple(scores.columns) == CASE_COLUMNS
    assert set(scores["arm"]) == {"prediction"}
    assert set(scores["site"]) == {"CBICA"}
    for name, row in table.iterrows():
        image = nib.load(tmp_path / "data" / name / f"{name}_flair.nii.gz")
        written = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
        assert written.shape == image.shape
        found = masks(labels(tmp_path / "out" / f"{name}.nii.gz"))
        truth = masks(labels(tmp_path / "data" / name / f"{name}_seg.nii.gz"))
        by_region = scores[scores["case"] == name].set_index("region")
        for region in REGIONS:
            assert row[f"volume_ml_{region.lower()}"] == pytest.approx(
                found[region].sum() * ml, rel=1e-3, abs=1e-5
            )
            assert by_region.loc[region, "dice"] == pytest.approx(dice(found[region], truth[region]))
            maps = [
                nib.load(tmp_path / "out" / f"{name}_{kind}_{region.lower()}.nii.gz")
                for kind in ("probability", "uncertainty_entropy", "uncertainty_std")
            ]
            p, entropy, std = (m.get_fdata() for m in maps)
            np.testing.assert_allclose(maps[0].affine, image.affine, atol=1e-4)
            q = np.clip(p, 1e-9, 1 - 1e-9)
            np.testing.assert_allclose(entropy, -q * np.log2(q) - (1 - q) * np.log2(1 - q), atol=1e-5)
            assert 0 < std.max() < 0.5
            assert (p[image.get_fdata() == 0] == 0).sum() > 0  # outside the crop nothing is claimed
        wt = nib.load(tmp_path / "out" / f"{name}_probability_wt.nii.gz").get_fdata()
        assert (found["WT"] <= (wt > 0.5) | found["TC"]).all()
        assert 100 < found["WT"].sum() < found["WT"].size
    worst = table[[f"uncertainty_{r.lower()}" for r in REGIONS]].max(axis=1)
    assert table["review_rank"].astype(int).to_dict() == worst.rank(ascending=False).astype(int).to_dict()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["cases"], summary["labelled"], summary["failed"]) == (2, 2, {})
    assert [(m["arm"], m["round"]) for m in summary["members"]] == [("federated", 1)]
    assert summary["settings"]["inference"]["flips"] is True
    assert summary["versions"]["torch"]
    reliability = pd.read_csv(tmp_path / "out" / "reliability.csv")
    brains = sum(
        int(np.any([v for k, v in volumes(i).items() if k != "seg"], axis=0).sum()) for i in range(2)
    )
    assert reliability.groupby("region")["voxels"].sum().to_dict() == dict.fromkeys(REGIONS, brains)
    assert not (tmp_path / "out" / "steps.csv").exists()


@pytest.fixture(scope="module")
def upright(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is predicted for the case of seed 0 in RAS."""
    folder = tmp_path_factory.mktemp("ras")
    write_case(folder / "data", "A")
    predict(trained, folder / "data", folder / "out", "maps=true")
    return folder / "out"


@pytest.mark.parametrize("codes", ["LPS", "RAI", "ASR", "SPL"])
def test_every_orientation_gives_the_same_segmentation(
    codes: str, trained: Path, upright: Path, tmp_path: Path
) -> None:
    first = write_case(tmp_path / "other", "A", codes=codes) / "A_t1.nii.gz"
    image = nib.load(first)
    image.set_qform(image.affine, code=2)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, first)
    predict(trained, tmp_path / "other", tmp_path / "out_other", "maps=true")
    found = []
    for out in (upright, tmp_path / "out_other"):
        both = [
            nib.as_closest_canonical(nib.load(out / file)) for file in ("A.nii.gz", "A_probability_tc.nii.gz")
        ]
        found.append([(np.asarray(i.dataobj), i.affine) for i in both])
    for (one, affine), (other, other_affine) in zip(*found, strict=True):
        np.testing.assert_allclose(affine, other_affine, atol=1e-4)
        np.testing.assert_array_equal(one, other)
        assert len(np.unique(one)) > 2
    stored = nib.load(tmp_path / "out_other" / "A.nii.gz")
    assert "".join(nib.aff2axcodes(stored.affine)) == codes
    assert stored.header.get_xyzt_units() == ("mm", "sec")
    assert (int(stored.header["sform_code"]), int(stored.header["qform_code"])) == (2, 2)


@pytest.mark.parametrize(
    ("name", "label", "more", "enhancing"),
    [
        ("BraTS-GLI-00001-000", True, (), 3),  # its own labels
        ("BraTS-GLI-00001-000", False, (), 3),  # its names'
        ("HOSP_1", False, (), 4),  # the run's
        ("HOSP_1", False, ("labels=gli2023",), 3),
        ("BraTS19_CBICA_1_1", True, (), 4),
    ],
)
def test_label_numbers_are_the_datas_own(
    name: str, label: bool, more: tuple[str, ...], enhancing: int, trained: Path, tmp_path: Path
) -> None:
    write_case(tmp_path / "data", name, label=label)
    _, lines = predict(trained, tmp_path / "data", tmp_path / "out", *more, drawn=True)
    assert set(np.unique(labels(tmp_path / "out" / f"{name}.nii.gz"))) == {0, 1, 2, enhancing}
    assert f"ET {enhancing}" in lines[0]
    assert ("by the names of 1 case" in lines[0]) == ("BraTS" in name)
    for name in ("scores.csv", "report.html", "reliability.png", "retained.png"):
        assert (tmp_path / "out" / name).exists() is label


def test_bad_cases_are_reported_and_stop_no_other(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    for index, name in enumerate(("A", "B", "C", "D")):
        write_case(data, name, seed=index)
    arguments = [f"checkpoint={trained}", f"data={data}", f"output={output}"]
    assert main(arguments) == 0
    good = {name: labels(output / f"{name}.nii.gz") for name in ("A", "D")}
    (data / "B" / "B_t2.nii.gz").unlink()
    file = data / "C" / "C_t1ce.nii.gz"
    file.write_bytes(file.read_bytes()[:-100])
    capsys.readouterr()
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "2 cases predicted, 2 failed" in said
    table = pd.read_csv(output / "cases.csv", keep_default_na=False).set_index("case")
    missing, damaged = table.loc["B"], table.loc["C"]
    assert missing["status"].startswith("failed: ")
    assert f"{data}/B/B_t2.nii.gz: modality t2 is missing" in missing["status"]
    assert f"{file}: truncated or damaged" in damaged["status"]
    assert (missing["volume_ml_wt"], missing["review_rank"]) == ("", "")
    assert sorted(f.name for f in output.glob("*.nii.gz")) == ["A.nii.gz", "D.nii.gz"]
    for name, expected in good.items():
        np.testing.assert_array_equal(labels(output / f"{name}.nii.gz"), expected)
    scores = pd.read_csv(output / "scores.csv").set_index(["case", "region"])
    assert len(scores) == 12
    assert scores.loc[("B", "WT"), "dice"] == 0
    assert scores.loc[("B", "WT"), "status"] == missing["status"]
    true = scores.loc[("A", "WT"), "volume_true_ml"]
    assert scores.loc[("B", "WT"), "volume_true_ml"] == true > 0
    assert set(json.loads((output / "summary.json").read_text())["failed"]) == {"B", "C"}


def test_an_unreadable_label_costs_the_score_only(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path / "data", "A")
    (tmp_path / "data" / "A" / "A_seg.nii.gz").write_bytes(b"")
    table, _ = predict(trained, tmp_path / "data", tmp_path / "out")
    assert table.loc["A", "status"] == "ok"
    assert "not scored: " in table.loc["A", "notes"]
    assert "A_seg.nii.gz: empty file" in table.loc["A", "notes"]
    assert not (tmp_path / "out" / "scores.csv").exists()
    assert main([f"checkpoint={trained}", f"data={tmp_path / 'data'}", f"output={tmp_path / 'out'}"]) == 0
    assert "not scored, as their labels cannot be used: 1; cases.csv says why" in capsys.readouterr().out


def test_nothing_of_an_earlier_prediction_stays(trained: Path, tmp_path: Path) -> None:
    folder = write_case(tmp_path / "data", "A")
    predict(trained, tmp_path / "data", tmp_path / "out", "maps=true")
    (folder / "A_seg.nii.gz").unlink()
    predict(trained, tmp_path / "data", tmp_path / "out", "labels=brats2021")
    left = sorted(f.name for f in (tmp_path / "out").iterdir() if not f.name.startswith("."))
    assert left == ["A.nii.gz", "cases.csv", "summary.json"]


def test_a_bad_label_costs_the_score_only(trained: Path, tmp_path: Path) -> None:
    for name in ("A", "B"):
        write_case(tmp_path / "data", name)
    bad = volumes()["seg"]
    bad[0, 0, 0] = 77
    nib.save(nib.Nifti1Image(bad, AFFINE), tmp_path / "data" / "B" / "B_seg.nii.gz")
    table, _ = predict(trained, tmp_path / "data", tmp_path / "out")
    assert table.loc["B", "status"] == "ok"
    assert table.loc["B", "notes"].startswith("not scored: ")
    assert "B_seg.nii.gz: unexpected labels [77]" in table.loc["B", "notes"]
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["case"]) == {"A"}
    np.testing.assert_array_equal(
        labels(tmp_path / "out" / "A.nii.gz"), labels(tmp_path / "out" / "B.nii.gz")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpont=x"], r"checkpont: .*not in"),
        (["checkpoint={run}"], r"missing: data="),
        (["checkpoint={run}", "data={data}", "inference.fips=true"], r"inference\.fips: .*not in"),
        (["checkpoint={run}", "data={data}", "inference.flips=maybe"], r"inference\.flips: "),
        (["checkpoint={run}", "data={data}", "maps=3.5"], r"maps: "),
        (["checkpoint={run}", "data={data}", "flips"], r"flips: expected key=value"),
        (["checkpoint=[]", "data={data}"], r"checkpoint=\[\]"),
        (["checkpoint={run}", "data=nowhere"], r"nowhere: no such folder; data must name"),
        (["checkpoint={run}", "data={data}", "device=tpu"], r"device=tpu"),
        (["checkpoint={run}", "data={data}", "labels=5"], r"labels=5: choose one of auto"),
        (["checkpoint={run}", "data={data}", "postprocess=magic"], r"postprocess=magic: choose one of"),
        (["checkpoint={run}", "data={data}", "metrics.convention=x"], r"metrics\.convention"),
        (["checkpoint={run}", "data={data}", "inference.combine=vote"], r"there is one voice"),
        (["checkpoint=[{run},{run}]", "data={data}"], r"named twice"),
        (["checkpoint={run}", "data={data}", "histogram=x.json"], r"no model here matches histograms"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    arguments: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path / "data", "A")
    filled = [a.format(run=trained, data=tmp_path / "data") for a in arguments]
    assert main([*filled, f"output={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.startswith("fedbrats: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "checkpoint=RUN[@ARM[@WHICH]]" in capsys.readouterr().out
    assert main([]) == 2


def test_nothing_is_predicted_outside_a_skull_stripped_brain(tmp_path: Path) -> None:
    """A network that has learned nothing predicts tumour in the air; the run's step takes it away and is measured."""
    make_run(tmp_path / "run", "postprocess=inside_brain")
    case = write_case(tmp_path / "data", "A")
    images = [nib.load(case / f"A_{kind}.nii.gz").get_fdata() for kind in ("t1", "t1ce", "t2", "flair")]
    air = ~np.any(np.stack(images) != 0, axis=0)
    assert air.mean() > 0.1
    predict(tmp_path / "run", tmp_path / "data", tmp_path / "raw", "postprocess=none")
    assert labels(tmp_path / "raw" / "A.nii.gz")[air].any()
    table, _ = predict(tmp_path / "run", tmp_path / "data", tmp_path / "out")
    assert not labels(tmp_path / "out" / "A.nii.gz")[air].any()
    assert "skull-stripped" not in table.loc["A", "notes"]
    steps = pd.read_csv(tmp_path / "out" / "steps.csv")
    assert steps[steps["step"] == "inside the brain"]["changed_voxels"].sum() > 0


def test_an_image_with_its_skull_is_told_and_left(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "postprocess=inside_brain")
    case = write_case(tmp_path / "data", "A")
    for kind in ("t1", "t1ce", "t2", "flair"):
        image = nib.load(case / f"A_{kind}.nii.gz")
        noise = np.asarray(image.dataobj) + 1
        nib.save(
            nib.Nifti1Image(noise.astype(image.get_data_dtype()), image.affine), case / f"A_{kind}.nii.gz"
        )
    table, _ = predict(tmp_path / "run", tmp_path / "data", tmp_path / "out")
    assert "the image is not skull-stripped" in table.loc["A", "notes"]
    predict(tmp_path / "run", tmp_path / "data", tmp_path / "raw", "postprocess=none")
    both = [labels(tmp_path / name / "A.nii.gz") for name in ("raw", "out")]
    np.testing.assert_array_equal(*both)

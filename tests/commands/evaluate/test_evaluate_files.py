import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from fedbrats.commands.evaluate.arguments import EvaluateConfig, read_arguments
from fedbrats.commands.evaluate.command import main
from fedbrats.commands.evaluate.evaluate_files import evaluate
from fedbrats.config.targets import ConfigError
from tests.data.hostile_files import HOSTILE, written
from tests.scored import CASE_COLUMNS
from tests.warm_command import fedbrats

AFFINE = np.array([[-1.0, 0, 0, 9], [0, -1, 0, 11], [0, 0, 2, -3], [0, 0, 0, 1]])  # LPS, 2 mm slices


def labels(et=4, shift=0):
    """ET 4x4x4 inside ED 6x6x6, moved along the first axis."""
    volume = np.zeros((20, 16, 14), np.uint8)
    volume[5 + shift : 11 + shift, 5:11, 4:10] = 2
    volume[6 + shift : 10 + shift, 6:10, 5:9] = et
    return volume


NEW = "labels.predictions=gli2023"


def write(path, volume, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Three references with ET 4; a good prediction with ET 3, a truncated one, and none for the third."""
    for name in ("Brats18_TCIA01_1_1", "Brats18_TCIA02_2_1", "Brats18_TCIA02_3_1"):
        write(tmp_path / "truth" / name / f"{name}_seg.nii.gz", labels())
    write(tmp_path / "guess" / "Brats18_TCIA01_1_1.nii.gz", labels(et=3, shift=1))
    broken = write(tmp_path / "guess" / "Brats18_TCIA02_2_1.nii.gz", labels(et=3))
    broken.write_bytes(broken.read_bytes()[:60])
    return tmp_path


def config(folder, *more):
    arguments = [
        f"predictions={folder / 'guess'}",
        f"references={folder / 'truth'}",
        f"output={folder / 'out'}",
    ]
    return read_arguments([*arguments, *more])


def run(settings):
    rows, notes = [], []
    found = evaluate(settings, rows.append, notes.append)
    return rows, notes, found.cases, found.summary


def test_good_broken_and_missing_predictions(folders):
    """Shift by one voxel: WT overlap 5/6, ET 3/4; HD95 1 mm. The others are failed rows with worst scores."""
    rows, notes, cases, summary = run(config(folders, NEW))
    assert [row["status"][:6] for row in rows] == ["ok"] * 3 + ["failed"] * 6
    assert [row["dice"] for row in rows[:3]] == pytest.approx([5 / 6, 3 / 4, 3 / 4])
    assert [row["hd95"] for row in rows[:3]] == pytest.approx([1, 1, 1])
    assert {(row["dice"], row["hd95"], row["lesion_hd95"]) for row in rows[3:]} == {(0, 374, 374)}
    assert str(folders / "guess" / "Brats18_TCIA02_2_1.nii.gz") in rows[3]["status"]
    assert rows[6]["status"] == "failed: no prediction"
    assert rows[6]["volume_true_ml"] == pytest.approx(6 * 6 * 6 * 2 / 1000)
    assert [row["site"] for row in rows[::3]] == ["TCIA01", "TCIA02", "TCIA02"]
    told = "BraTS 2017 to 2021 (NCR 1, ED 2, ET 4) by the names of 3 cases"
    assert f"label numbers of the references: {told}" in notes
    told = "BraTS 2023 GLI (NCR 1, ED 2, ET 3) set by labels.predictions for 1 case"
    assert f"label numbers of the predictions: {told}" in notes
    assert "lesion-wise scores: reference grown by 3, larger than 50 mm3" in notes
    pooled = summary[(summary.site == "all") & (summary.metric == "dice") & (summary.region == "WT")]
    assert pooled[["n", "failed"]].to_numpy().tolist() == [[3, 2]]
    assert pooled["mean"].item() == pytest.approx(5 / 6 / 3)
    assert pooled["worst_site"].item() == "TCIA02"
    pd.testing.assert_frame_equal(pd.read_csv(folders / "out" / "cases.csv"), cases)
    assert tuple(cases.columns) == CASE_COLUMNS
    assert set(pd.read_csv(folders / "out" / "summary.csv")["convention"]) == {"brats2023"}


def test_orientation_on_disk_does_not_matter(tmp_path):
    """The same prediction stored with permuted and flipped axes scores the same."""
    truth = write(tmp_path / "truth" / "a_seg.nii.gz", labels())
    image = nib.Nifti1Image(labels(shift=2), AFFINE)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("S", "A", "L"))[[2, 0, 1]])
    assert turned.shape != image.shape
    write(tmp_path / "one" / "a.nii.gz", labels(shift=2))
    write(tmp_path / "two" / "a.nii.gz", np.asarray(turned.dataobj), turned.affine)
    results = []
    for side in ("one", "two"):
        settings = EvaluateConfig(str(tmp_path / side / "a.nii.gz"), str(truth), str(tmp_path / "out"))
        results.append(run(settings)[2])
    pd.testing.assert_frame_equal(*results)
    assert results[0]["dice"].tolist() == pytest.approx([4 / 6, 2 / 4, 2 / 4])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("shape", r"wrong shape \(19, 16, 14\), expected \(20, 16, 14\) of the reference\); resample it$"),
        ("affine", r"up to 1 mm apart from those of the reference\); resample it, or set grid=voxels"),
    ],
)
def test_a_prediction_on_another_grid_fails_and_ends_nothing(folders, what, words):
    path = folders / "guess" / "Brats18_TCIA02_3_1.nii.gz"
    moved = AFFINE.copy()
    moved[0, 3] += 1
    write(path, labels(3)[:-1] if what == "shape" else labels(3), AFFINE if what == "shape" else moved)
    rows = run(config(folders, NEW))[0]
    assert [row["status"][:6] for row in rows] == ["ok"] * 3 + ["failed"] * 6
    assert rows[6]["status"].startswith(f"failed: {path}: on another grid than its reference")
    assert re.search(words, rows[6]["status"])


def test_a_tenth_of_a_voxel_is_one_grid(folders):
    """As in the check of a case: 0.09 of a voxel at every corner is rounding of some tool, 0.11 is another place."""
    for by, status in ((0.09, "ok"), (0.11, "failed")):
        moved = AFFINE.copy()
        moved[0, 3] += by
        write(folders / "guess" / "Brats18_TCIA02_3_1.nii.gz", labels(3), moved)
        assert run(config(folders, NEW))[0][6]["status"].startswith(status)


def test_predictions_that_lost_their_header_can_be_compared_voxel_by_voxel(folders):
    for path in (folders / "guess").iterdir():
        path.unlink()
    write(folders / "guess" / "Brats18_TCIA01_1_1.nii.gz", labels(et=3, shift=1), np.eye(4))
    only = ("only_predicted=true", NEW)
    assert run(config(folders, *only))[0][0]["status"].startswith("failed")
    rows = run(config(folders, *only, "grid=voxels"))[0]
    assert [row["dice"] for row in rows] == pytest.approx([5 / 6, 3 / 4, 3 / 4])
    assert rows[0]["volume_true_ml"] == pytest.approx(6 * 6 * 6 * 2 / 1000)  # millimetres are the reference's
    write(folders / "guess" / "Brats18_TCIA01_1_1.nii.gz", labels(et=3)[:-1], np.eye(4))
    rows = run(config(folders, *only, "grid=voxels"))[0]
    assert "stored with shape (19, 16, 14), expected (20, 16, 14)" in rows[0]["status"]


def test_an_unusable_reference_is_lost_and_said_and_ends_nothing(folders):
    odd = labels()
    odd[0, 0, 0] = 9
    write(folders / "guess" / "Brats18_TCIA02_3_1.nii.gz", np.where(odd == 4, 3, odd))
    rows = run(config(folders, NEW))[0]
    assert "unexpected labels [9]" in rows[6]["status"]
    truth = folders / "truth"
    write(truth / "Brats18_TCIA02_3_1" / "Brats18_TCIA02_3_1_seg.nii.gz", odd)
    (truth / "Brats18_TCIA02_2_1" / "Brats18_TCIA02_2_1_seg.nii.gz").write_bytes(b"")
    notes = []
    found = evaluate(config(folders, NEW), lambda row: None, notes.append)
    assert set(found.cases["case"]) == {"Brats18_TCIA01_1_1"}
    assert list(found.lost) == ["guess/Brats18_TCIA02_2_1", "guess/Brats18_TCIA02_3_1"]
    assert not found.complete
    assert str(found) == "predictions: 3 asked for, 1 scored, 2 not scored and not in the tables"
    assert any("Brats18_TCIA02_2_1_seg.nii.gz: empty file" in note for note in notes)
    assert any("Brats18_TCIA02_3_1_seg.nii.gz: unexpected labels [9]" in note for note in notes)


def test_the_exit_status_says_whether_all_could_be_scored(folders, capsys):
    words = [f"{key}={folders / value}" for key, value in (("predictions", "guess"), ("references", "truth"))]
    words += [NEW, f"output={folders / 'out'}"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "failed, Brats18_TCIA02_3_1: no prediction" in said
    assert "3 asked for, 1 scored, 2 failed and given the worst scores" in said
    (folders / "guess" / "Brats18_TCIA02_2_1.nii.gz").unlink()
    assert main([*words, "only_predicted=true"]) == 0
    assert "1 asked for, 1 scored" in capsys.readouterr().err
    # a prediction that was asked for by being there, without a reference
    write(folders / "guess" / "Brats18_TCIA02_9_1.nii.gz", labels(3))
    assert main([*words, "only_predicted=true"]) == 1
    assert "not scored, Brats18_TCIA02_9_1: no reference" in capsys.readouterr().err
    assert main([*words[:2], "grid=worlds"]) == 2
    assert "grid=worlds: choose world or voxels" in capsys.readouterr().err


def test_paths_are_taken_as_they_are_typed(folders, monkeypatch):
    odd = folders / "[ü] a=b #1: ~"
    odd.mkdir()
    (folders / "guess").rename(odd / "guess")
    monkeypatch.setenv("HOME", str(folders))
    words = [f"predictions=~/{odd.name}/guess", "references=~/truth", f"output=~/{odd.name}/out", NEW]
    assert len(evaluate(read_arguments(words), lambda row: None, lambda text: None).scored) == 1
    assert (odd / "out" / "cases.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predictions=a", "reference=b"], "reference: .*not in 'EvaluateConfig'"),
        (["predictions=a", "references=b", "metrics.hd95=monai"], "metrics.hd95: .*not in 'MetricsConfig'"),
        (["predictions=a", "references=b", "labels.et=4"], "labels.et: .*not in 'LabelsConfig'"),
        (["predictions=a"], "missing: references=<file or folder>"),
        (["predictions"], "predictions: expected key=value"),
    ],
)
def test_wrong_arguments_fail_by_name(arguments, message):
    with pytest.raises(ConfigError, match=message):
        read_arguments(arguments)


def test_wrong_settings_fail_before_any_work(folders):
    with pytest.raises(ValueError, match=r"metrics.convention: unknown 'medpy'"):
        run(config(folders, "metrics.convention=medpy"))
    with pytest.raises(ConfigError, match=r"labels.references=four: choose one of auto, brats2021, "):
        run(config(folders, "labels.references=four"))
    with pytest.raises(ConfigError, match=r"labels.predictions=\{'et': 4\}: give ncr, ed and et"):
        run(config(folders, "labels.predictions={et: 4}"))
    with pytest.raises(
        ConfigError, match=r"doubt: .*guess.Brats18_TCIA01_1_1.nii.gz; set labels.predictions=gli2023"
    ):
        run(config(folders))
    assert not (folders / "out").exists()


def test_the_decathlon_is_read_by_its_own_numbers(tmp_path):
    """All 8 voxels of necrosis (2) predicted as oedema (1): WT and ET are perfect, TC has 64 of its 72 voxels."""
    truth = labels(et=3)
    truth[truth == 2] = 1
    truth[6:8, 6:10, 9:10] = 2
    guess = np.where(truth == 2, 1, truth)
    write(tmp_path / "truth" / "BRATS_001.nii.gz", truth)
    write(tmp_path / "guess" / "BRATS_001.nii.gz", guess)
    rows, notes, _, _ = run(config(tmp_path))
    assert [row["dice"] for row in rows] == pytest.approx([1, 2 * 64 / (64 + 64 + 8), 1])
    assert (
        "label numbers of the predictions: Decathlon Task01 (NCR 2, ED 1, ET 3) by the names of 1 case"
        in notes
    )
    rows, _, _, _ = run(
        config(tmp_path, "labels.references=gli2023", "labels.predictions={ncr: 1, ed: 2, et: 3}")
    )
    assert rows[1]["dice"] == pytest.approx(2 * 208 / (208 + 216))


def test_small_lesions_count_as_the_family_of_the_reference_says(tmp_path):
    """A lesion of 4 voxels (8 mm3), missed: above the 2 mm3 of metastases, below the 50 mm3 of glioma."""
    truth = labels(et=3)
    truth[19, 15, 10:14] = 3
    for case, found in (("BraTS-MET-00001-000", 1 / 2), ("BraTS-GLI-00001-000", 1)):
        write(tmp_path / case / "truth" / f"{case}-seg.nii.gz", truth)
        write(tmp_path / case / "guess" / f"{case}.nii.gz", labels(et=3))
        rows, _, _, _ = run(config(tmp_path / case))
        assert rows[0]["lesion_dice"] == pytest.approx(found)


@pytest.mark.slow
def test_command_prints_only_json(folders):
    paths = [f"{key}={folders / value}" for key, value in (("predictions", "guess"), ("references", "truth"))]
    command = ["evaluate", *paths, NEW, "metrics.convention=captk"]
    done = fedbrats(*command, cwd=folders)
    assert done.status == 1  # two of the three predictions cannot be scored
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) == 9
    assert list(rows[0]) == ["convention", *CASE_COLUMNS]
    assert {row["convention"] for row in rows} == {"captk"}
    assert rows[8]["hd95"] == pytest.approx(373.1287, abs=1e-4)
    assert "HD95 convention: captk" in done.err
    assert (folders / "evaluation" / "cases.csv").is_file()
    refused = fedbrats(*command, "metric=x", cwd=folders)
    assert (refused.status, refused.out) == (2, "")
    assert "metric: " in refused.err
    assert "Traceback" not in refused.err


def test_every_hostile_prediction_fails_by_itself(tmp_path):
    for number, kind in enumerate(HOSTILE.keys() - {"link"}):  # a folder of predictions may hold links
        name = f"Brats18_CBICA_{number:03d}_1"
        write(tmp_path / "truth" / f"{name}.nii.gz", labels())
        written(kind, write(tmp_path / "guess" / "all" / f"{name}.nii.gz", labels()))
    write(tmp_path / "truth" / "Brats18_CBICA_999_1.nii.gz", labels())
    write(tmp_path / "guess" / "all" / "Brats18_CBICA_999_1.nii.gz", labels())
    _, _, cases, _ = run(config(tmp_path))
    status = cases.drop_duplicates("case").set_index("case")["status"]
    assert (status == "ok").sum() == 1
    assert set(status.index[status == "ok"]) == {"Brats18_CBICA_999_1"}
    assert status[status != "ok"].str.startswith(f"failed: {tmp_path / 'guess' / 'all'}/Brats18_CBICA_").all()


def test_the_limit_of_voxels_is_the_users_own(folders):
    with pytest.raises(
        ConfigError, match=r"nothing could be scored: .* 4480 voxels, more than max_voxels=4479"
    ):
        run(config(folders, "max_voxels=4479"))

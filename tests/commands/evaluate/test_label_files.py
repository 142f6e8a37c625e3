from pathlib import Path

import pytest

from fedbrats.commands.evaluate.label_files import (
    case_name,
    find_label_files,
    labelled,
    pair_files,
)
from fedbrats.config.targets import ConfigError
from fedbrats.data.family_table import OWN, OWN_HYPHENS
from fedbrats.data.regions import LabelSystem
from tests.data.brats_files import write_decathlon


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("Brats18_TCIA01_201_1_seg.nii.gz", "Brats18_TCIA01_201_1"),
        ("BraTS-GLI-00005-000-seg.nii.gz", "BraTS-GLI-00005-000"),
        ("BraTS-GLI-00005-000.nii.gz", "BraTS-GLI-00005-000"),
        ("X_1_seg_GroundTruth.nii", "X_1"),
        ("UPENN-GBM-00006_11_automated_approx_segm.nii.gz", "UPENN-GBM-00006_11"),
        ("X_1/seg.nii.gz", "X_1"),
        ("X_1/X_1_seg.nii/00000057_final_seg.nii", "X_1"),
        ("X_1/Prediction.nii", "X_1"),
        ("case_0001.nii.gz", "case_0001"),
    ],
)
def test_case_name(name, case):
    assert case_name(Path("/data") / name) == case


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_pairing_over_different_layouts(tmp_path):
    truths = touch(
        tmp_path / "r", "a/a_seg.nii.gz", "a/a_t1.nii.gz", "b/b_seg.nii.gz", "c/._c_seg.nii.gz", "x.txt"
    )
    guesses = touch(tmp_path / "p", "a.nii.gz", "other/seg.nii")
    pairs, unused = pair_files(guesses, truths)
    assert [(p.case, p.prediction) for p in pairs] == [("a", guesses / "a.nii.gz"), ("b", None)]
    assert [p.reference for p in pairs] == [truths / "a/a_seg.nii.gz", truths / "b/b_seg.nii.gz"]
    assert unused == [guesses / "other/seg.nii"]
    pairs, _ = pair_files(guesses / "a.nii.gz", truths)
    assert [p.case for p in pairs] == ["a"]
    pairs, _ = pair_files(guesses / "a.nii.gz", truths / "b/b_seg.nii.gz")
    assert [(p.case, p.prediction) for p in pairs] == [("b", guesses / "a.nii.gz")]


def test_what_cannot_be_paired_is_refused(tmp_path):
    touch(tmp_path, "r/a_seg.nii.gz", "p/b.nii.gz", "none/a_t1.nii.gz")
    with pytest.raises(ConfigError, match=r"no case has both: .*p holds b, .*r holds a"):
        pair_files(tmp_path / "p", tmp_path / "r")
    with pytest.raises(ConfigError, match="no label file found"):
        find_label_files(tmp_path / "none")
    with pytest.raises(ConfigError, match="missing: no such file or folder"):
        find_label_files(tmp_path / "missing")


@pytest.mark.parametrize(
    ("case", "file", "naming"),
    [
        ("BraTS-PED-00001-000", "BraTS-PED-00001-000.nii.gz", "BraTS-PED"),
        ("BRATS_001", "anything.nii.gz", "Decathlon"),  # two files are a pair whatever they are called
        ("a", "BRATS_001.nii.gz", "Decathlon"),
        ("a", "a-seg.nii.gz", OWN_HYPHENS),
        ("a", "a_seg.nii.gz", OWN),
    ],
)
def test_the_names_of_a_label_file(tmp_path, case, file, naming):
    assert labelled(case, tmp_path / file, {0}).naming == naming


def test_a_dataset_json_beside_labels_says_their_numbers(tmp_path):
    texts = {"0": "background", "3": "edema", "1": "non-enhancing tumor", "2": "enhancing tumour"}
    write_decathlon(tmp_path, ("renamed",), texts)
    found = labelled("renamed", tmp_path / "labelsTr" / "renamed.nii.gz", {0})
    assert (found.naming, found.stated) == ("Decathlon", LabelSystem("msd", ncr=1, ed=3, et=2))
    (tmp_path / "dataset.json").write_text(
        '{"labels": {"background": 0, "whole tumor": [1, 2, 3]}}'
    )  # nnU-Net's
    assert labelled("renamed", tmp_path / "labelsTr" / "renamed.nii.gz", {0}).stated is None


def test_two_files_for_one_case_are_the_fault_of_that_case(tmp_path):
    touch(tmp_path, "p/a.nii", "p/x/A_pred.nii.gz", "p/b.nii", "r/a.nii", "r/b.nii", "r/y/b_seg.nii")
    (a, b), unused = pair_files(tmp_path / "p", tmp_path / "r")
    assert (
        a.fault == f"two predictions, {tmp_path / 'p/a.nii'} and {tmp_path / 'p/x/A_pred.nii.gz'}; keep one"
    )
    assert (a.lost, b.fault, unused) == ("", "", [])
    assert b.lost.startswith("two references, ")


def test_letter_case_pairs_and_what_was_predicted_alone_counts_if_asked(tmp_path):
    touch(tmp_path, "p/BRATS19_tcia01_1_1.nii.gz", "p/c.nii", "r/BraTS19_TCIA01_1_1_seg.nii.gz", "r/b.nii")
    pairs, unused = pair_files(tmp_path / "p", tmp_path / "r")
    assert [(p.case, p.fault) for p in pairs] == [("BraTS19_TCIA01_1_1", ""), ("b", "no prediction")]
    assert unused == [tmp_path / "p/c.nii"]
    pairs, unused = pair_files(tmp_path / "p", tmp_path / "r", only_predicted=True)
    assert [(p.case, p.lost) for p in pairs] == [("BraTS19_TCIA01_1_1", ""), ("c", "no reference")]
    assert unused == []


def test_a_label_that_its_case_adopted_is_its_reference(tmp_path):
    name = "BraTS20_Training_355"
    touch(tmp_path, *(f"{name}/{name}_{kind}.nii" for kind in ("t1", "t1ce", "t2", "flair")))
    touch(tmp_path, f"{name}/W39_1998.09.19_Segm.nii", "BraTS20_Training_354/BraTS20_Training_354_seg.nii")
    said = []
    found = find_label_files(tmp_path, said.append)
    assert sorted(files.case for files in found.values()) == ["BraTS20_Training_354", name]
    assert said == [f"{name}: W39_1998.09.19_Segm.nii is its label, as it lies in the case's own folder"]


def test_a_whole_data_set_serves_as_references(tmp_path):
    """Its images, its outputs, the 4D images of the Decathlon and the maps of a prediction are no label files."""
    touch(tmp_path, "a/a_seg.nii.gz", "a/a_t1.nii.gz", "b/t1.nii.gz", "b/seg.nii.gz", "a/a_FLAIR.nii")
    touch(tmp_path, "out/cases.csv", "out/summary.json", "out/a.nii.gz")
    touch(tmp_path, "m/dataset.json", "m/imagesTr/BRATS_001.nii.gz", "m/labelsTr/BRATS_001.nii.gz")
    touch(tmp_path, "w/w_t2.nii/1_brain_t2.nii", "w/w_seg.nii/1_final_seg.nii")
    touch(
        tmp_path,
        "a/a_probability_wt.nii.gz",
        "a/a_uncertainty_entropy_et.nii.gz",
        "a/a_uncertainty_std_tc.nii.gz",
    )
    said = []
    found = find_label_files(tmp_path, said.append)
    assert {files.case: [p.name for p in files.paths] for files in found.values()} == {
        "a": ["a_seg.nii.gz"],
        "b": ["seg.nii.gz"],
        "BRATS_001": ["BRATS_001.nii.gz"],
        "w": ["1_final_seg.nii"],
    }
    assert said == [f"passed over, as fedbrats wrote it: {tmp_path / 'out'} (predictions)"]

from pathlib import Path

import numpy as np
import pytest

from fedbrats.commands.evaluate.label_files import (
    case_name,
    find_label_files,
    labelled,
    pair_files,
    same_grid,
)
from fedbrats.config.targets import ConfigError
from fedbrats.data.family_table import OWN, OWN_HYPHENS
from fedbrats.data.nifti import Source
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
    touch(
        tmp_path, "r/a_seg.nii.gz", "p/b.nii.gz", "twice/a.nii", "twice/x/a_pred.nii.gz", "none/a_t1.nii.gz"
    )
    with pytest.raises(ConfigError, match=r"no case has both: .*p holds b, .*r holds a"):
        pair_files(tmp_path / "p", tmp_path / "r")
    with pytest.raises(ConfigError, match=r"two label files for case a: .*a\.nii and .*a_pred\.nii\.gz"):
        find_label_files(tmp_path / "twice")
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


def test_same_grid_looks_at_the_world_not_at_the_storage():
    ras = Source((4, 5, 6), np.diag([1.0, 1, 1, 1]).tolist(), "RAS")
    flipped = Source((5, 4, 6), [[0, -1, 0, 3], [-1, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]], "PLS")
    # stored axis 0 (5 voxels) runs along y, axis 1 (4 voxels) along x, both backwards
    mirrored = Source((5, 4, 6), [[0, -1, 0, 3], [-1, 0, 0, 4], [0, 0, 1, 0.5], [0, 0, 0, 1]], "PLS")
    assert same_grid(ras, flipped)
    assert not same_grid(ras, mirrored)
    assert not same_grid(ras, Source((4, 5, 7), ras.affine, "RAS"))

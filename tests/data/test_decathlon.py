"""The `dataset.json` of the Decathlon: channels and label numbers as written there, nothing guessed."""

import json
from pathlib import Path

import pytest

from fedbrats.data.decathlon import read_entries, read_labels

CONTENT = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    "training": [{"image": "./imagesTr/BRATS_457.nii.gz", "label": "./labelsTr/BRATS_457.nii.gz"}],
    "test": ["./imagesTs/BRATS_485.nii.gz"],
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps(CONTENT | changes))
    return path


def test_channels_and_labels_as_published(tmp_path: Path) -> None:
    entry, test = read_entries(write(tmp_path))
    assert (test.name, test.image, test.label) == (
        "BRATS_485",
        tmp_path / "imagesTs" / "BRATS_485.nii.gz",
        None,
    )
    assert entry.name == "BRATS_457"
    assert entry.image == tmp_path / "imagesTr" / "BRATS_457.nii.gz"
    assert entry.label == tmp_path / "labelsTr" / "BRATS_457.nii.gz"
    assert entry.channels == {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}
    system = read_labels(tmp_path / "dataset.json")
    assert (system.ncr, system.ed, system.et) == (2, 1, 3)


def test_channels_follow_the_file(tmp_path: Path) -> None:
    entry, _ = read_entries(write(tmp_path, modality={"0": "T2w", "1": "FLAIR", "2": "T1w", "3": "t1gd"}))
    assert entry.channels == {"t2": 0, "flair": 1, "t1": 2, "t1ce": 3}


def test_a_dataset_json_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1"}}')
    with pytest.raises(ValueError, match=r"dataset\.json: no description of the Decathlon"):
        read_entries(tmp_path / "dataset.json")


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected FLAIR, T1w, t1gd and T2w"):
        read_entries(write(tmp_path, modality={"0": "CT"}))


def test_labels_that_are_not_named_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.json: 'labels' is"):
        read_labels(write(tmp_path, labels={"0": "background", "1": "tumour"}))


def test_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json: not readable as JSON"):
        read_entries(tmp_path / "dataset.json")

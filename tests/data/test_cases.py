"""Every naming of BraTS is found."""

import os
from pathlib import Path

import pytest

from fedbrats.data.cases import MODALITIES, as_labelled
from fedbrats.data.family_table import MSD
from fedbrats.data.finding import find_cases
from fedbrats.data.patients import patient_of
from fedbrats.data.regions import LabelSystem
from tests.data.brats_files import NEW, OLD, save, segmentation, write_case, write_decathlon

REAL = os.environ.get("FEDBRATS_REAL_DATA")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(
    ("name", "endings", "family", "patient"),
    [
        ("Brats17_TCIA_135_1", OLD, "BraTS 2017 to 2021", "TCIA_135"),
        ("Brats18_CBICA_AAB_1", OLD, "BraTS 2017 to 2021", "CBICA_AAB"),
        ("BraTS19_2013_10_1", OLD, "BraTS 2017 to 2021", "2013_10"),
        ("BraTS20_Training_001", OLD, "BraTS 2017 to 2021", "BraTS20_Training_001"),
        ("BraTS2021_01341", OLD, "BraTS 2017 to 2021", "BraTS2021_01341"),
        ("FeTS21_Training_001", OLD, "FeTS", "FeTS21_Training_001"),
        ("FeTS2022_01341", OLD, "FeTS", "BraTS2021_01341"),
        ("BraTS-GLI-01341-000", NEW, "BraTS-GLI", "BraTS-GLI-01341"),
        ("UPENN-GBM-00006_11", OLD, "UPENN-GBM", "UPENN-GBM-00006"),
        ("TCGA-02-0003_1997.06.08", OLD | {"t1ce": "_t1Gd"}, "BraTS 2017 to 2021", "TCGA-02-0003"),
    ],
)
def test_every_naming(tmp_path: Path, name, endings, family, patient, flat, suffix) -> None:
    write_case(tmp_path / "HGG", name, endings=endings, flat=flat, suffix=suffix)
    (case,) = find_cases(tmp_path)
    assert (case.name, case.family) == (name, family)
    assert patient_of(case.name) == patient
    assert list(case.images) == list(MODALITIES)
    for modality, file in case.images.items():
        assert file.path.name == f"{name}{endings[modality]}{suffix}"
        assert file.channel is None
    assert case.label is not None
    assert case.label.path.name == f"{name}{endings['seg']}{suffix}"


def test_nested_and_sorted(tmp_path: Path) -> None:
    write_case(tmp_path / "HGG", "Brats18_TCIA02_135_1")
    write_case(tmp_path / "LGG" / "more", "Brats18_2013_0_1")
    assert [case.name for case in find_cases(tmp_path)] == ["Brats18_2013_0_1", "Brats18_TCIA02_135_1"]


def test_upenn_as_the_archive_names_it(tmp_path: Path) -> None:
    name = "UPENN-GBM-00006_11"
    for ending in ("T1", "T1GD", "T2", "FLAIR"):
        save(tmp_path / "images_structural" / name / f"{name}_{ending}.nii.gz", segmentation())
    save(tmp_path / "images_segm" / f"{name}_segm.nii.gz", segmentation())
    save(tmp_path / "automated_segm" / f"{name}_automated_approx_segm.nii.gz", segmentation())
    (case,) = find_cases(tmp_path)
    assert [case.images[m].path.name[len(name) + 1 : -7] for m in MODALITIES] == ["T1", "T1GD", "T2", "FLAIR"]
    assert case.label is not None
    assert case.label.path.name == f"{name}_segm.nii.gz"


def test_segmentation_with_a_foreign_name_joins_its_case(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "BraTS20_Training_355")
    write_case(tmp_path, "BraTS20_Training_354")
    (folder / "BraTS20_Training_355_seg.nii.gz").rename(folder / "W39_1998.09.19_Segm.nii.gz")
    first, second = find_cases(tmp_path)
    assert first.name == "BraTS20_Training_354"
    assert second.label is not None
    assert second.label.path.name == "W39_1998.09.19_Segm.nii.gz"


def test_decathlon(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    write_decathlon(tmp_path / "Task01_BrainTumour", ("BRATS_001", "BRATS_002"), labels)
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["BRATS_001", "BRATS_002"]
    assert {m: f.channel for m, f in cases[0].images.items()} == {"t1": 1, "t1ce": 2, "t2": 3, "flair": 0}
    assert {file.path.name for file in cases[0].images.values()} == {"BRATS_001.nii.gz"}
    labelled = as_labelled(cases[0], {0, 1})
    assert (labelled.naming, labelled.stated) == ("Decathlon", MSD)


def test_decathlon_labels_come_from_the_file(tmp_path: Path) -> None:
    labels = {"0": "background", "3": "edema", "1": "non-enhancing tumor", "2": "enhancing tumour"}
    write_decathlon(tmp_path, ("BRATS_001",), labels)
    (case,) = find_cases(tmp_path)
    assert as_labelled(case, {0}).stated == LabelSystem("msd", ncr=1, ed=3, et=2)


def test_incomplete_case_is_returned(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "BraTS2021_00001")
    (folder / "BraTS2021_00001_t1ce.nii.gz").unlink()
    (folder / "BraTS2021_00001_seg.nii.gz").unlink()
    (case,) = find_cases(tmp_path)
    assert list(case.images) == ["t1", "t2", "flair"]
    assert case.label is None


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "._BraTS2021_00001_t1.nii.gz").write_bytes(b"finder")
    with pytest.raises(ValueError, match=r"no case found.*_t1ce.*-t1c.*dataset\.json"):
        find_cases(tmp_path)
    with pytest.raises(ValueError, match=r"no such folder.*data\.root"):
        find_cases(tmp_path / "nowhere")


@pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")
def test_real_cases_are_found() -> None:
    cases = find_cases(Path(str(REAL)) / "brats")
    assert len(cases) == 8
    assert all(list(case.images) == list(MODALITIES) and case.label for case in cases)
    assert [case.family for case in cases].count("UPENN-GBM") == 1

"""Every naming of BraTS is found, and its label numbers are recognised or refused."""

import os
from pathlib import Path

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import MODALITIES, Case, describe_labels, resolve_labels
from fedbrats.data.finding import find_cases
from fedbrats.data.patients import patient_of
from fedbrats.data.regions import BRATS_2017, BRATS_2023, BRATS_2024
from tests.data.brats_files import NEW, OLD, save, segmentation, write_case, write_decathlon

REAL = os.environ.get("FEDBRATS_REAL_DATA")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(
    ("name", "endings", "family", "patient"),
    [
        ("Brats17_TCIA_135_1", OLD, "brats2017-2021", "TCIA_135"),
        ("Brats18_CBICA_AAB_1", OLD, "brats2017-2021", "CBICA_AAB"),
        ("BraTS19_2013_10_1", OLD, "brats2017-2021", "2013_10"),
        ("BraTS20_Training_001", OLD, "brats2017-2021", "BraTS20_Training_001"),
        ("BraTS2021_01341", OLD, "brats2017-2021", "BraTS2021_01341"),
        ("FeTS21_Training_001", OLD, "fets", "FeTS21_Training_001"),
        ("FeTS2022_01341", OLD, "fets", "BraTS2021_01341"),
        ("BraTS-GLI-01341-000", NEW, "brats2023", "BraTS-GLI-01341"),
        ("UPENN-GBM-00006_11", OLD, "upenn", "UPENN-GBM-00006"),
        ("TCGA-02-0003_1997.06.08", OLD | {"t1ce": "_t1Gd"}, "brats2017-2021", "TCGA-02-0003"),
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
    system = resolve_labels(cases, {case.name: {0, 1, 2, 3} for case in cases}, None)
    assert (system.name, system.ncr, system.ed, system.et) == ("msd", 2, 1, 3)
    assert "dataset.json" in describe_labels(cases, system)
    with pytest.raises(ConfigError, match=r"data\.et_label is 4"):
        resolve_labels(cases, {}, 4)


def test_decathlon_labels_come_from_the_file(tmp_path: Path) -> None:
    labels = {"0": "background", "3": "edema", "1": "non-enhancing tumor", "2": "enhancing tumour"}
    write_decathlon(tmp_path, ("BRATS_001",), labels)
    system = resolve_labels(find_cases(tmp_path), {}, None)
    assert (system.ncr, system.ed, system.et) == (1, 3, 2)


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


def cases_of(**families: str) -> list[Case]:
    return [
        Case(name.replace("__", "-"), {}, None, family.replace("_", "-")) for name, family in families.items()
    ]


OLD_CASES = cases_of(A="brats2017-2021", B="brats2017-2021")
NEW_CASES = cases_of(A="brats2023", B="brats2023")


@pytest.mark.parametrize(
    ("cases", "a", "b", "et_label", "system"),
    [
        (OLD_CASES, {0, 1, 2, 4}, {0, 1, 2}, None, BRATS_2017),
        (OLD_CASES, {0, 1, 2}, {0, 1, 2}, None, BRATS_2017),  # no ET anywhere: the names decide
        (OLD_CASES, {0, 1, 2, 3}, {0, 1, 2}, 3, BRATS_2023),
        (OLD_CASES, {0, 1, 2, 4}, {0, 1, 2}, 4, BRATS_2017),
        (NEW_CASES, {0, 1, 2, 3}, {0, 2}, None, BRATS_2023),
        (NEW_CASES, {0, 1, 2, 3}, {0, 2, 3, 4}, None, BRATS_2024),
        (NEW_CASES, {0, 1, 2, 4}, {0, 2}, 4, BRATS_2017),
        (NEW_CASES, {0, 1, 2, 4}, {0, 2}, 3, BRATS_2024),
        (cases_of(A="brats2017-2021", B="upenn"), {0, 4}, {0, 4}, None, BRATS_2017),
        (cases_of(A="fets", B="brats2017-2021"), {0, 4}, {0, 1}, None, BRATS_2017),
    ],
)
def test_label_system_recognised(cases, a, b, et_label, system) -> None:
    found = resolve_labels(cases, {"A": a, "B": b}, et_label)
    assert found == system
    sentence = describe_labels(cases, found, et_label)
    assert f"Enhancing tumour is label {system.et} " in sentence
    assert ("data.et_label" in sentence) == (et_label is not None)


@pytest.mark.parametrize(
    ("cases", "a", "b", "et_label", "message"),
    [
        (OLD_CASES, {0, 1, 2, 4}, {0, 1, 2, 3}, None, "B holds 3, and 4, as A does; set data.et_label"),
        (OLD_CASES, {0, 1, 2, 3}, {0, 1, 2}, None, "ambiguous.*A holds 3"),
        (OLD_CASES, {0, 1, 2, 4}, {0}, 3, "data.et_label is 3, but A holds 4"),
        (OLD_CASES, {0, 1, 2, 3}, {0}, 4, "data.et_label is 4, but A holds 3"),
        (OLD_CASES, {0}, {0}, 2, "data.et_label is 2"),
        (NEW_CASES, {0, 1, 2, 4}, {0, 1}, None, "ambiguous.*no case holds 3 and A holds 4"),
        (NEW_CASES, {0, 1, 2, 3}, {0, 4}, 4, "data.et_label is 4, but A holds 3"),
        (cases_of(A="brats2017-2021", B="brats2023"), {0, 4}, {0, 3}, None, "mixes label numbers"),
    ],
)
def test_ambiguous_labels_are_refused(cases, a, b, et_label, message) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_labels(cases, {"A": a, "B": b}, et_label)


def test_paediatric_numbers_are_refused() -> None:
    cases = [Case("BraTS-PED-00001-000", {}, None, "brats2023")]
    with pytest.raises(ConfigError, match="BraTS-PED"):
        resolve_labels(cases, {"BraTS-PED-00001-000": {0, 1, 2, 3, 4}}, None)


@pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")
def test_real_cases_are_found() -> None:
    cases = find_cases(Path(str(REAL)) / "brats")
    assert len(cases) == 8
    assert all(list(case.images) == list(MODALITIES) and case.label for case in cases)
    assert [case.family for case in cases].count("upenn") == 1

"""Files are given to the case that they belong to: not greedily, not by the letter; what was decided is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedbrats.data.checks import check_cases
from fedbrats.data.finding import find_cases
from tests.data.brats_files import NEW, OLD, image, save, segmentation, write_case, write_decathlon

DECATHLON = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}


def found(root: Path, **options: bool) -> tuple[dict, list[str]]:
    """Case by name, and what was said."""
    said: list[str] = []
    return {case.name: case for case in find_cases(root, said.append, **options)}, said


def take_label(folder: Path, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_seg.nii.gz").rename(target)


@pytest.mark.parametrize(
    ("case", "label"),
    [
        ("Brats18_2013_AAA_1", "Brats18_TCIA01_BBB_1_seg.nii.gz"),
        ("HOSP_0001", "HOSP_0017_seg.nii.gz"),  # no known collection, but a name like those of the others
        ("HOSP_0001", "UCSF-PDGM-0001_segm.nii.gz"),
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_the_label_of_another_patient_is_never_adopted(
    tmp_path: Path, case: str, label: str, flat: bool
) -> None:
    folder = write_case(tmp_path, case, flat=flat)
    take_label(folder, case, folder / label)
    cases, _ = found(tmp_path)
    assert cases[case].label is None
    assert len(cases) == 2
    errors = [p.what for p in check_cases(list(cases.values())).errors if p.case]
    assert len(errors) == 2
    assert any("segmentation is missing" in what for what in errors)
    assert any("a segmentation without images" in what for what in errors)


def test_a_label_with_a_foreign_name_is_adopted_in_the_own_folder_of_its_case_only(tmp_path: Path) -> None:
    for number in ("354", "355", "356"):
        write_case(tmp_path, f"BraTS20_Training_{number}")
    own = tmp_path / "BraTS20_Training_355"
    take_label(own, "BraTS20_Training_355", own / "W39_1998.09.19_Segm.nii.gz")
    cases, _ = found(tmp_path)
    case = cases["BraTS20_Training_355"]
    assert case.label.path.name == "W39_1998.09.19_Segm.nii.gz"
    (warning,) = check_cases(list(cases.values())).problems
    assert warning.case == "BraTS20_Training_355"
    assert "W39_1998.09.19_Segm.nii.gz was taken as its segmentation" in warning.what
    # the same file in a folder that is not the case's own is nobody's
    own.rename(tmp_path / "somewhere")
    cases, _ = found(tmp_path)
    assert cases["BraTS20_Training_355"].label is None
    assert cases["W39_1998.09.19"].images == {}


def test_letter_case_makes_no_second_case(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "BraTS19_TCIA01_200_1")
    for kind in ("t2", "seg"):
        path = folder / f"BraTS19_TCIA01_200_1_{kind}.nii.gz"
        path.rename(folder / f"brats19_tcia01_200_1_{kind.upper()}.nii.gz")
    cases, _ = found(tmp_path)
    (case,) = cases.values()
    assert case.name == "BraTS19_TCIA01_200_1"  # as most of its files spell it
    assert len(case.images) == 4
    assert case.label is not None
    assert "spell its name in 2 ways" in case.remarks[0]
    assert not [p for p in check_cases([case]).problems if p.severity == "error"]


def test_own_outputs_below_the_root_are_no_cases(tmp_path: Path) -> None:
    write_case(tmp_path, "BraTS2021_00001")
    marks = {
        "outputs/day/time": ("config.yaml", "environment.json"),
        "failed": ("config.yaml", "summary.json"),
        "predictions": ("cases.csv", "summary.json"),
        "outputs/cache": ("cases/x", "hashes/x", "building/x"),
        "phantom": ("phantom.json",),
    }
    for folder, names in marks.items():
        write_case(tmp_path / folder, "BraTS2021_00001")
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
    cases, said = found(tmp_path)
    (case,) = cases.values()
    assert case.faults == ()
    (note,) = said
    assert note.startswith("passed over, as fedbrats wrote it: ")
    assert "and 2 more" in note
    # asked for by name, each is a folder of cases like any other
    assert list(found(tmp_path / "predictions")[0]) == ["BraTS2021_00001"]
    shutil.rmtree(tmp_path / "BraTS2021_00001")
    with pytest.raises(ValueError, match=r"no case found.*passed over, as fedbrats wrote it"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"channel_names": {"0": "T1"}}',
        '{"modality": {"0": "CT"}, "labels": {}, "training": []}',
        '{"modality": ["CT"], "labels": {}, "training": []}',
        '{"modality": {"a": "FLAIR", "b": "T1w", "c": "t1gd", "d": "T2w"}, "labels": {}, "training": []}',
    ],
)
def test_a_foreign_dataset_json_is_passed_over_and_said_once(tmp_path: Path, content: str) -> None:
    write_case(tmp_path, "BraTS2021_00001")
    (tmp_path / "nnunet").mkdir()
    (tmp_path / "nnunet" / "dataset.json").write_text(content)
    cases, said = found(tmp_path)
    assert list(cases) == ["BraTS2021_00001"]
    (note,) = said
    assert note.startswith(f"passed over: {tmp_path / 'nnunet' / 'dataset.json'}")


def test_an_odd_entry_of_the_decathlon_is_left_out_alone(tmp_path: Path) -> None:
    write_decathlon(tmp_path, ("BRATS_001",), DECATHLON)
    content = json.loads((tmp_path / "dataset.json").read_text())
    content["training"].append("./imagesTr/BRATS_002.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    cases, said = found(tmp_path)
    assert list(cases) == ["BRATS_001"]
    assert "expected an 'image' and a 'label'; left out" in said[0]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes_in_folders_that_are_called_like_them(tmp_path: Path, suffix: str) -> None:
    for number in range(2):
        name = f"BraTS2021_0000{number}"
        for i, kind in enumerate(("t1", "t1ce", "t2", "flair", "seg")):
            inner = f"{57 + number:08d}_{'final' if kind == 'seg' else 'brain'}_{kind}{suffix}"
            data = segmentation() if kind == "seg" else image(10 * number + i)
            save(tmp_path / name / f"{name}_{kind}{suffix}" / inner, data)
    cases, said = found(tmp_path)
    assert list(cases) == ["BraTS2021_00000", "BraTS2021_00001"]
    assert cases["BraTS2021_00000"].label.path.name == f"00000057_final_seg{suffix}"
    assert "10 volumes lie in folders that are called like them" in said[0]
    assert not [p for p in check_cases(list(cases.values())).problems if p.severity == "error"]


def test_inner_names_of_a_case_folder(tmp_path: Path) -> None:
    """As in a wrapper, `_brain` and `_final` are no part of a name; alone in a folder they are of its case."""
    for folder, number in (("BraTS2021_00000", 57), ("all", 58), ("all", 59)):
        for i, kind in enumerate(("t1", "t1ce", "t2", "flair", "seg")):
            word = "final" if kind == "seg" else "brain"
            save(tmp_path / folder / f"{number:08d}_{word}_{kind}.nii", image(10 * number + i))
    for kind in ("t1", "t1ce", "t2", "flair", "seg"):  # whose name says more than a number keeps it
        save(tmp_path / "x" / "anat" / f"sub-01_brain_{kind}.nii", image(5))
    cases, _ = found(tmp_path)
    assert list(cases) == ["00000058", "00000059", "BraTS2021_00000", "sub-01_brain"]
    assert all(len(case.images) == 4 and case.label for case in cases.values())


@pytest.mark.parametrize(
    "names",
    [
        ("t1", "t1ce", "t2", "flair", "seg"),
        ("T1", "T1GD", "T2", "FLAIR", "segm"),
        ("t1n", "t1c", "t2w", "t2f", "seg"),
    ],
)
def test_volumes_that_tell_the_modality_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        save(tmp_path / "pat123" / f"{name}.nii.gz", segmentation() if i == 4 else image(i))
    cases, said = found(tmp_path)
    assert list(cases) == ["pat123"]
    assert list(cases["pat123"].images) == ["t1", "t1ce", "t2", "flair"]
    assert cases["pat123"].label is not None
    assert said == ["named by their folders, as the files tell the modality alone: pat123"]
    assert list(found(tmp_path / "pat123")[0]) == ["pat123"]


def test_a_volume_in_two_files_is_the_fault_of_its_case(tmp_path: Path) -> None:
    for name in ("BraTS2021_00001", "BraTS2021_00002"):
        write_case(tmp_path / "a", name)
    shutil.copytree(tmp_path / "a" / "BraTS2021_00001", tmp_path / "b" / "brats2021_00001")
    cases, _ = found(tmp_path)
    check = check_cases(list(cases.values()))
    assert check.bad_cases == {"BraTS2021_00001"}
    assert len(check.errors) == 5
    assert "2 files are its flair" in check.errors[0].what
    assert "keep one" in check.errors[0].what


def test_a_case_of_two_data_sets_is_a_fault_of_that_case(tmp_path: Path) -> None:
    write_decathlon(tmp_path / "Task01", ("BRATS_001", "BRATS_002"), DECATHLON)
    write_case(tmp_path / "other", "BRATS_001", (1, 2, 3))
    cases, _ = found(tmp_path)
    assert list(cases) == ["BRATS_001", "BRATS_002"]
    assert "found twice, in two data sets" in cases["BRATS_001"].faults[0]
    assert cases["BRATS_002"].faults == ()


def with_test_cases(root: Path) -> Path:
    """Task01 with one labelled case, one test case, and one test case that was not downloaded."""
    write_decathlon(root, ("BRATS_001",), DECATHLON)
    save(root / "imagesTs" / "BRATS_002.nii.gz", np.stack([image(1000 + c) for c in range(4)], -1))
    content = json.loads((root / "dataset.json").read_text())
    content["test"] = ["./imagesTs/BRATS_002.nii.gz", "./imagesTs/BRATS_003.nii.gz"]
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_test_cases_of_the_decathlon_are_there_to_be_predicted(tmp_path: Path) -> None:
    root = with_test_cases(tmp_path / "Task01_BrainTumour")
    cases, said = found(root, unlabelled=True)
    assert list(cases) == ["BRATS_001", "BRATS_002"]
    assert cases["BRATS_002"].label is None
    assert {m: f.channel for m, f in cases["BRATS_002"].images.items()}["t1ce"] == 2
    assert said == ["test cases of the Decathlon without a file: BRATS_003"]
    assert list(found(root / "imagesTs", unlabelled=True)[0]) == ["BRATS_002"]
    assert found(root / "imagesTr", unlabelled=True)[0]["BRATS_001"].label is not None


def test_a_run_leaves_the_test_cases_of_the_decathlon_out_and_says_so(tmp_path: Path) -> None:
    cases, said = found(with_test_cases(tmp_path))
    assert list(cases) == ["BRATS_001"]
    assert said[1:] == ["left out, test cases of the Decathlon without labels: BRATS_002"]


def test_names_of_2023_keep_their_family_in_a_wrapper(tmp_path: Path) -> None:
    name = "BraTS-GLI-00001-000"
    for kind, ending in NEW.items():
        save(tmp_path / name / f"{name}{ending}.nii" / f"1{OLD[kind]}.nii", segmentation())
    assert found(tmp_path)[0][name].family == "BraTS-GLI"

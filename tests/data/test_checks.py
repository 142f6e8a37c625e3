"""Every kind of broken file is written for real and must be named."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.data import checks
from fedbrats.data.checks import check_case, check_cases
from fedbrats.data.family_table import BY_NAME, MSD
from fedbrats.data.finding import find_cases
from fedbrats.data.inspection import Problem
from tests.data.brats_files import AFFINE, NEW, SHAPE, image, save, segmentation, write_case, write_decathlon

NAME = "BraTS2021_00001"
REAL = os.environ.get("FEDBRATS_REAL_DATA")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_case(tmp_path, NAME)


def only_problem(folder: Path) -> Problem:
    (case,) = find_cases(folder)
    (problem,) = check_case(case)
    return problem


def test_a_sound_case_has_no_problem(folder: Path) -> None:
    (case,) = find_cases(folder)
    assert check_case(case) == []


@pytest.mark.parametrize("kind", ["t1", "t1ce", "t2", "flair", "seg"])
def test_missing_modality_names_the_file_that_was_expected(folder: Path, kind: str) -> None:
    path = folder / f"{NAME}_{kind}.nii.gz"
    path.unlink()
    problem = only_problem(folder)
    assert problem.file == str(path)
    assert "missing" in problem.what
    assert problem.severity == "error"


def test_missing_modality_in_the_names_of_2023(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "BraTS-GLI-00001-000", endings=NEW, numbers=(1, 2, 3))
    (folder / "BraTS-GLI-00001-000-t1c.nii.gz").unlink()
    assert only_problem(folder).file.endswith("BraTS-GLI-00001-000-t1c.nii.gz")


def with_nan() -> np.ndarray:
    data = image(5).astype(np.float32)
    data[1, 2, 3] = np.nan
    return data


def with_infinity() -> np.ndarray:
    data = image(5).astype(np.float32)
    data[1, 2, 3] = np.inf
    return data


SHIFTED = AFFINE.copy()
SHIFTED[0, 3] = 1.0
STRETCHED = AFFINE.copy()
STRETCHED[2, 2] = 1.2


@pytest.mark.parametrize(
    ("kind", "data", "affine", "words"),
    [
        ("t2", image(5)[:-1], AFFINE, ["wrong shape (7, 9, 7)", "expected (8, 9, 7)"]),
        ("seg", segmentation()[:, :, :-1], AFFINE, ["wrong shape (8, 9, 6)", "expected (8, 9, 7)"]),
        ("t1", image(5), SHIFTED, ["wrong affine", "1 mm"]),
        ("flair", image(5), STRETCHED, ["wrong affine", "1.2 mm"]),
        ("seg", segmentation(), SHIFTED, ["wrong affine"]),
        ("t1ce", with_nan(), AFFINE, ["1 of 504 voxels are NaN"]),
        ("t1ce", with_infinity(), AFFINE, ["1 of 504 voxels are NaN or infinite"]),
        ("t1", np.zeros(SHAPE, np.int16), AFFINE, ["all voxels are zero"]),
        ("t1", np.stack([image(5)] * 2, -1), AFFINE, ["expected a 3D volume", "(8, 9, 7, 2)"]),
        ("seg", segmentation() * 0.5, AFFINE, ["whole numbers", "0.5"]),
    ],
)
def test_wrong_content_is_named(folder: Path, kind, data, affine, words) -> None:
    path = save(folder / f"{NAME}_{kind}.nii.gz", data, affine)
    problem = only_problem(folder)
    assert (problem.case, problem.file, problem.severity) == (NAME, str(path), "error")
    for word in words:
        assert word in problem.what


@pytest.mark.parametrize("kind", ["t1", "seg"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "no volume"])
def test_unreadable_file_is_named(folder: Path, kind: str, damage: str) -> None:
    path = folder / f"{NAME}_{kind}.nii.gz"
    whole = path.read_bytes()
    parts = {"empty": b"", "truncated": whole[: len(whole) // 2], "no volume": gzip.compress(b"x" * 999)}
    path.write_bytes(parts[damage])
    problem = only_problem(folder)
    assert (problem.file, problem.severity) == (str(path), "error")
    assert {"empty": "0 bytes", "truncated": "truncated", "no volume": "not a readable NIfTI"}[
        damage
    ] in problem.what
    assert str(problem).count(path.name) == 1


def test_other_storage_order_of_one_modality_is_no_problem(folder: Path) -> None:
    path = folder / f"{NAME}_t2.nii.gz"
    loaded = nib.load(path)
    nib.save(loaded.as_reoriented(nib.orientations.axcodes2ornt("SAR")), path)
    assert nib.load(path).shape != SHAPE
    (case,) = find_cases(folder)
    assert check_case(case) == []


def test_two_places_for_one_image_give_a_warning(folder: Path) -> None:
    path = folder / f"{NAME}_t2.nii.gz"
    changed = nib.load(path)
    there = AFFINE.copy()
    there[1, 3] -= 5
    changed.set_sform(AFFINE, code=1)
    changed.set_qform(there, code=1)
    nib.save(changed, path)
    problem = only_problem(folder)
    assert (problem.file, problem.severity) == (str(path), "warning")
    assert problem.what == "qform and sform lie up to 5 mm apart; the sform is taken"


def test_a_background_that_is_nowhere_0_gives_a_warning(folder: Path) -> None:
    path = save(folder / f"{NAME}_flair.nii.gz", image(4711) + 1)
    problem = only_problem(folder)
    assert (problem.file, problem.severity) == (str(path), "warning")
    assert "no voxel is 0" in problem.what
    assert "skull-stripped" in problem.what


def test_warnings_do_not_make_a_case_bad(folder: Path) -> None:
    save(folder / f"{NAME}_seg.nii.gz", np.zeros(SHAPE, np.uint8))
    save(folder / f"{NAME}_t2.nii.gz", image(7))
    save(folder / f"{NAME}_t1.nii.gz", image(7))
    check = check_cases(find_cases(folder))
    assert sorted(p.what for p in check.problems) == [
        "holds the same voxels as t1",
        "no voxel is labelled as tumour",
    ]
    assert check.bad_cases == set()
    assert check.errors == []


def test_no_world_space_is_a_warning(tmp_path: Path) -> None:
    for i, kind in enumerate(("t1", "t1ce", "t2", "flair", "seg")):
        data = segmentation() if kind == "seg" else image(i)
        nib.save(nib.Nifti1Image(data, None), tmp_path / f"{NAME}_{kind}.nii.gz")
    (case,) = find_cases(tmp_path)
    problems = check_case(case)
    assert len(problems) == 5
    assert all("sform" in p.what and p.severity == "warning" for p in problems)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_duplicate_case_is_found_whatever_the_number_format(tmp_path: Path, dtype: type) -> None:
    write_case(tmp_path, "Brats18_TCIA02_135_1")
    copy = write_case(tmp_path, "BraTS19_CBICA_AAB_1")
    for kind in ("t1", "t1ce"):
        voxels = np.asarray(nib.load(copy / f"BraTS19_CBICA_AAB_1_{kind}.nii.gz").dataobj)
        save(tmp_path / "Brats18_TCIA02_135_1" / f"Brats18_TCIA02_135_1_{kind}.nii.gz", voxels.astype(dtype))
    check = check_cases(find_cases(tmp_path))
    (problem,) = check.problems
    assert problem.case == "Brats18_TCIA02_135_1"  # the later name in sorted order
    assert problem.what.startswith("duplicate case, t1, t1ce as in BraTS19_CBICA_AAB_1")
    assert check.bad_cases == {"Brats18_TCIA02_135_1"}


def test_a_bad_case_does_not_settle_the_label_numbers(tmp_path: Path) -> None:
    write_case(tmp_path, "BraTS2021_00001")
    write_case(tmp_path, "BraTS2021_00002", numbers=(1, 3, 9))
    check = check_cases(find_cases(tmp_path))
    assert check.bad_cases == {"BraTS2021_00002"}
    assert check.families is not None
    assert set(check.families.odd) == {"BraTS2021_00002"}
    assert check.families.by_case["BraTS2021_00001"] == BY_NAME["brats2021"]
    assert "unexpected labels [3, 9]" in check.problems[0].what
    assert check.problems[0].file.endswith("BraTS2021_00002_seg.nii.gz")


def test_ambiguous_labels_are_a_problem_of_the_data_set(tmp_path: Path) -> None:
    write_case(tmp_path, "BraTS2021_00002", numbers=(1, 2, 3))
    check = check_cases(find_cases(tmp_path))
    assert check.families is None
    (problem,) = check.problems
    assert problem.case == ""
    assert "BraTS2021_00002_seg.nii.gz; set data.labels=gli2023" in problem.what
    assert check_cases(find_cases(tmp_path), labels="gli2023").problems == []


def test_threads_find_the_same(tmp_path: Path) -> None:
    for i in range(3):
        write_case(tmp_path, f"BraTS2021_0000{i}")
    (tmp_path / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").write_bytes(b"")
    cases = find_cases(tmp_path)
    seen: list[str] = []
    alone = check_cases(cases)
    assert check_cases(cases, workers=2, progress=lambda result: seen.append(result.case)) == alone
    assert seen == [case.name for case in cases]
    assert len(alone.problems) == 1


def test_decathlon_file_is_reported_once(tmp_path: Path) -> None:
    write_decathlon(
        tmp_path, ("BRATS_001", "BRATS_002"), {"1": "edema", "2": "non-enhancing", "3": "enhancing"}
    )
    path = tmp_path / "imagesTr" / "BRATS_002.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    check = check_cases(find_cases(tmp_path))
    (problem,) = check.problems
    assert problem.file == str(path)
    assert check.families is not None
    assert check.families.by_case["BRATS_001"].labels == MSD


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")
def test_real_cases_are_sound() -> None:
    check = check_cases(find_cases(Path(str(REAL)) / "brats"))
    assert check.problems == []
    assert check.families is not None
    assert sorted({family.name for family in check.families.by_case.values()}) == ["brats2021", "upenn"]
    assert set(check.numbers) == {case.name for case in find_cases(Path(str(REAL)) / "brats")}


def test_remembered_findings_follow_the_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        write_case(tmp_path / "data", f"BraTS2021_0000{i}")
    save(tmp_path / "data" / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz", np.zeros(SHAPE, np.int16))
    cases = find_cases(tmp_path / "data")
    fresh = check_cases(cases)
    memory = tmp_path / "memory"
    assert check_cases(cases, memory=memory) == fresh
    read: list[str] = []
    original = checks.inspect_case
    monkeypatch.setattr(
        checks, "inspect_case", lambda case, bounds: (read.append(case.name), original(case, bounds))[1]
    )
    assert check_cases(cases, memory=memory) == fresh
    assert read == []
    (path,) = (tmp_path / "data" / "BraTS2021_00000").glob("*_flair.nii.gz")
    stamp = path.stat()
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)  # same size and time, other bytes
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert check_cases(cases, memory=memory).bad_cases == {"BraTS2021_00000", "BraTS2021_00001"}
    assert read == ["BraTS2021_00000"]
    for entry in memory.iterdir():
        entry.write_text("{")
    assert check_cases(cases, memory=memory).bad_cases == {"BraTS2021_00000", "BraTS2021_00001"}
    assert len(read) == 3

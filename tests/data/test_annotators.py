"""Masks of three annotators become one label, how many of them marked a voxel, and nothing else passes for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.data.annotators import read_file, refuse_counts
from fedbrats.data.cache import prepare_case, restore
from fedbrats.data.cases import Case
from fedbrats.data.checks import check_cases
from fedbrats.data.family_table import ANNOTATORS
from fedbrats.data.finding import find_cases
from fedbrats.data.nifti import read_volume
from fedbrats.data.regions import regions_from_labels
from tests.data.brats_files import AFFINE, SHAPE, save, write_case

NAME = "BraTS19_CBICA_1_1"


def masks() -> list[np.ndarray]:
    """Of annotators who mark 3, 2 and 1 of three neighbours in a row, so that the counts there are 3, 2 and 1."""
    found = [np.zeros(SHAPE, np.uint8) for _ in range(3)]
    for reach, mask in zip((3, 2, 1), found, strict=True):
        mask[2 : 2 + reach, 4, 3] = 1
    return found


def annotated(root: Path, masks: list[np.ndarray], joint: str = "_") -> Path:
    """A case with its usual segmentation beside the masks."""
    folder = write_case(root, NAME)
    for number, mask in enumerate(masks, start=1):
        save(folder / f"{NAME}{joint}annotator{number}.nii.gz", mask)
    return folder


def found(root: Path, **more: object) -> Case:
    (case,) = find_cases(root, labels="annotators", **more)  # type: ignore[arg-type]
    return case


@pytest.mark.parametrize("joint", ["_", "-"])
def test_the_label_is_how_many_marked_a_voxel(tmp_path: Path, joint: str) -> None:
    folder = annotated(tmp_path, masks(), joint)
    case = found(tmp_path)
    assert case.label is not None
    assert not case.faults
    assert [path.name[-17:] for path in case.label.paths] == [f"annotator{n}.nii.gz" for n in (1, 2, 3)]
    each = [read_volume(folder / f"{NAME}{joint}annotator{n}.nii.gz")[0] for n in (1, 2, 3)]
    expected = np.sum(each, axis=0)
    assert np.array_equal(read_file(case.label)[0], expected)
    assert np.bincount(expected.ravel()).tolist()[1:] == [1, 1, 1]


def test_the_regions_of_a_prepared_case_are_at_least_one_two_and_three(tmp_path: Path) -> None:
    annotated(tmp_path / "data", masks())
    case = found(tmp_path / "data")
    assert case.label is not None
    cached = prepare_case(case, ANNOTATORS, tmp_path / "cache")
    counts = read_file(case.label)[0]
    regions = regions_from_labels(restore(np.asarray(cached.label), cached))
    for least, region in enumerate(regions, start=1):
        assert np.array_equal(region, counts >= least)


def test_every_mask_is_part_of_what_the_cache_goes_by(tmp_path: Path) -> None:
    first, second, third = masks()
    folders = []
    for place, last in enumerate((third, np.roll(third, 1, axis=2), third)):
        annotated(tmp_path / str(place), [first, second, last])
        folders.append(prepare_case(found(tmp_path / str(place)), ANNOTATORS, tmp_path / "cache").folder)
    assert folders[0] != folders[1]
    assert folders[0] == folders[2]


def test_without_the_option_masks_change_nothing(tmp_path: Path) -> None:
    folder = annotated(tmp_path, masks())
    (case,) = find_cases(tmp_path)
    assert case.label is not None
    assert case.label.paths == (folder / f"{NAME}_seg.nii.gz",)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_another_number_of_annotators_is_an_error_of_the_case(tmp_path: Path, count: int) -> None:
    annotated(tmp_path, (masks() * 2)[:count])
    case = found(tmp_path)
    problems = [p.what for p in check_cases([case], labels="annotators").errors]
    assert any(f"{count} masks of annotators; data.labels=annotators takes 3" in what for what in problems)


def test_a_case_to_predict_needs_no_masks(tmp_path: Path) -> None:
    annotated(tmp_path, [])
    case = found(tmp_path, unlabelled=True)
    assert (case.label, case.faults) == (None, ())


def test_a_mask_has_zero_and_one_only(tmp_path: Path) -> None:
    first, second, third = masks()
    folder = annotated(tmp_path, [first, second * 2, third])
    (problem,) = check_cases([found(tmp_path)], labels="annotators").errors
    assert f"{folder / NAME}_annotator2.nii.gz: unexpected numbers [2]" in problem.what


def test_masks_lie_on_one_grid(tmp_path: Path) -> None:
    folder = annotated(tmp_path, masks())
    moved = AFFINE.copy()
    moved[0, 3] += 5
    save(folder / f"{NAME}_annotator3.nii.gz", masks()[2], moved)
    case = found(tmp_path)
    assert case.label is not None
    with pytest.raises(ValueError, match=r"annotator3\.nii\.gz: wrong affine.*annotator1"):
        read_file(case.label)


def test_who_cannot_read_masks_says_so() -> None:
    with pytest.raises(ConfigError, match=r"labels=annotators: .* take this"):
        refuse_counts("labels", "annotators", "take this")
    refuse_counts("labels", "auto", "")

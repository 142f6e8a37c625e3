"""A file that claims or holds more than it should is refused by name, in little memory, and harms no other case."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.config.schema import DataConfig, PartitionConfig
from fedbrats.data.cases import ImageFile
from fedbrats.data.checks import check_cases
from fedbrats.data.finding import find_cases
from fedbrats.data.nifti import read_header, read_volume
from fedbrats.data.prepare import DataError, prepare
from fedbrats.data.stream import Bounds, VolumeError
from fedbrats.data.walking import bounds_of, links_outside
from tests.data.brats_files import AFFINE, image, save, write_case
from tests.data.hostile_files import HOSTILE, written

WHOLE_ONLY = {"bomb", "short"}  # the head alone is honest


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_volume_is_named_and_costs_no_memory(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data" / "case").mkdir(parents=True)
    file = written(kind, tmp_path / "data" / "case" / "case_t1.nii.gz")
    bounds = bounds_of(tmp_path / "data", DataConfig.max_voxels, "inside")
    tracemalloc.start()
    for read in (read_volume, read_header):
        if read is read_header and kind in WHOLE_ONLY:
            read(file, bounds=bounds)
            continue
        with pytest.raises(VolumeError, match=HOSTILE[kind][1]) as error:
            read(file, bounds=bounds)
        assert str(file) in str(error.value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def _data_set(root: Path) -> dict[str, Path]:
    """Two good cases, one for each hostile volume, and a linked folder outside; case -> its bad file."""
    bad = {}
    for number, kind in enumerate(HOSTILE):
        name = f"BraTS2021_{number:05d}"
        folder = write_case(root, name, seed=1000 + 10 * number)
        bad[name] = written(kind, folder / f"{name}_flair.nii.gz")
    for number in (90, 91, 92, 93):
        write_case(root, f"BraTS2021_{number:05d}")
    write_case(root.parent / "outside", "BraTS2021_00099")
    (root / "linked").symlink_to(root.parent / "outside")
    return bad


def test_every_hostile_volume_is_a_fault_of_its_own_case(tmp_path: Path) -> None:
    bad = _data_set(tmp_path / "data")
    data = DataConfig(root=str(tmp_path / "data"), cache=str(tmp_path / "cache"), on_bad_case="skip")
    partition = PartitionConfig(method="iid", sites=2, val=0, test=0)
    found = prepare(data, partition, 1, lambda text: None)
    assert set(found.cached) == {f"BraTS2021_000{n}" for n in (90, 91, 92, 93)}
    skipped = {entry["case"]: (entry["file"], entry["what"]) for entry in found.skipped}
    assert skipped.keys() == {*bad, "linked"}
    for name, file in bad.items():
        assert skipped[name][0] == str(file)
    again = prepare(data, partition, 1, lambda text: None)  # the findings are remembered
    assert again.skipped == found.skipped
    with pytest.raises(DataError, match=f"{len(bad) + 1} cases cannot be used"):
        prepare(replace(data, on_bad_case="fail"), partition, 1, lambda text: None)


def test_the_limit_counts_the_channels_of_a_file_together(tmp_path: Path) -> None:
    file = save(tmp_path / "a.nii.gz", np.stack([image(1), image(2)], -1))
    assert read_volume(file, 1, Bounds(2 * 504))[0].shape == (8, 9, 7)
    with pytest.raises(VolumeError, match=r"1008 voxels, more than data\.max_voxels=1007"):
        read_volume(file, 1, Bounds(2 * 504 - 1))
    with pytest.raises(VolumeError, match="more than max_voxels=1007"):
        read_header(file, Bounds(1007, group=""))


def test_a_larger_limit_checks_the_same_files_anew(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "BraTS2021_00000")
    cases, memory = find_cases(tmp_path / "data"), tmp_path / "memory"
    assert check_cases(cases, memory=memory, bounds=Bounds(503)).bad_cases == {"BraTS2021_00000"}
    assert not check_cases(cases, memory=memory, bounds=Bounds(504)).errors


def test_links_within_the_data_set_are_followed_and_those_out_of_it_on_demand(tmp_path: Path) -> None:
    write_case(tmp_path / "store", "BraTS2021_00000")
    root = tmp_path / "data"
    write_case(root / ".hidden", "BraTS2021_00001")
    (root / "inside").symlink_to(root / ".hidden")
    (root / "outside").symlink_to(tmp_path / "store")
    (root / "inside" / "circle").symlink_to(root)
    (root / "circle").symlink_to(root)
    assert [case.name for case in find_cases(root)] == ["BraTS2021_00001"]
    said: list[str] = []
    find_cases(root, said.append)
    assert said == [f"passed over, links that leave {root}: {root / 'outside'}"]
    assert links_outside(root) == [root / "outside"]
    assert not check_cases(find_cases(root), bounds=bounds_of(root, 504, "follow")).errors
    assert [case.name for case in find_cases(root, links="follow")] == ["BraTS2021_00000", "BraTS2021_00001"]
    (problem,) = check_cases(find_cases(root), bounds=bounds_of(root, 504, "inside")).errors
    assert str(problem).startswith(f"error: {root / 'outside'}: a link that leaves {root}")
    assert "set data.links=follow" in problem.what


def test_a_name_in_dataset_json_does_not_lead_out_of_the_data_set(tmp_path: Path) -> None:
    (case,) = find_cases(write_case(tmp_path / "data", "BraTS2021_00000"))
    outside = save(tmp_path / "secret.nii.gz", image(3))
    case = replace(case, images={**case.images, "t1": ImageFile(tmp_path / "data" / ".." / outside.name)})
    (problem,) = check_cases([case], bounds=bounds_of(tmp_path / "data", 504, "inside")).errors
    assert "a link that leaves" in problem.what


def test_scaled_and_swapped_voxels_are_those_of_nibabel(tmp_path: Path) -> None:
    stored = nib.Nifti1Image(image(1).astype(">i2"), AFFINE)
    stored.header.set_slope_inter(0.37, -11.25)
    for number, kind in enumerate((nib.Nifti1Image, nib.Nifti2Image)):
        file = tmp_path / f"{number}.nii.gz"
        nib.save(kind.from_image(stored), file)
        theirs = nib.as_closest_canonical(nib.load(file))
        ours, source = read_volume(file)
        assert np.array_equal(ours, np.asarray(theirs.dataobj))
        assert ours.dtype == np.asarray(theirs.dataobj).dtype
        assert source.affine == nib.load(file).affine.tolist()


@pytest.mark.parametrize("kind", ["bomb", "billions", "far", "colours", "complex", "link"])
def test_a_hostile_segmentation_is_named(tmp_path: Path, kind: str) -> None:
    folder = write_case(tmp_path / "data", "BraTS2021_00000")
    file = written(kind, folder / "BraTS2021_00000_seg.nii.gz")
    (case,) = find_cases(tmp_path / "data")
    (problem,) = check_cases([case], bounds=bounds_of(tmp_path / "data", 2**27, "inside")).errors
    assert (problem.case, problem.file) == ("BraTS2021_00000", str(file))

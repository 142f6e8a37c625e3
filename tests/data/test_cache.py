"""The cache: what an entry holds, what it is keyed by, and which cases are refused."""

import json
import os
import pickle
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.data.cache import CachedCase, prepare_case, prepare_cases, restore
from fedbrats.data.cases import MODALITIES, Case, ImageFile
from fedbrats.data.entries import CacheError
from fedbrats.data.family_table import BRATS_2017, BRATS_2023
from fedbrats.data.finding import find_cases
from fedbrats.data.nifti import Source, write_labels
from fedbrats.data.regions import regions_from_labels, to_canonical
from fedbrats.data.stream import Bounds
from tests.data.small_case import BRAIN, SHAPE, make_arrays, write_case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return write_case(tmp_path / "data", "A", make_arrays())


def test_entry_holds_the_cropped_and_normalised_case(case: Case, tmp_path: Path) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    arrays = make_arrays()
    assert cached.name == "A"
    assert cached.meta["crop"] == [[2, 9], [3, 11], [1, 8]]
    assert cached.meta["full_shape"] == list(SHAPE)
    assert cached.meta["spacing"] == pytest.approx([2.0, 1.0, 1.5])
    assert cached.image.dtype == np.float16
    assert cached.image.shape == (4, 7, 8, 7)
    for index, name in enumerate(MODALITIES):
        raw = arrays[name][BRAIN].astype(float)
        inside = raw != 0
        mean, std = raw[inside].mean(), raw[inside].std()
        np.testing.assert_allclose(cached.image[index][inside], ((raw - mean) / std)[inside], atol=2e-3)
        assert not cached.image[index][~inside].any()
        assert cached.meta["intensity"][name] == pytest.approx({"mean": mean, "std": std})
    assert cached.label.dtype == np.uint8
    np.testing.assert_array_equal(cached.label, np.array([0, 1, 2, 0, 3], np.uint8)[arrays["seg"][BRAIN]])


def test_meta_states_volumes_labels_and_digests(case: Case, tmp_path: Path) -> None:
    meta = prepare_case(case, BRATS_2017, tmp_path / "cache").meta
    assert meta["volumes_ml"] == pytest.approx({"WT": 27 * 0.003, "TC": 9 * 0.003, "ET": 4 * 0.003})
    assert meta["labels"] == [0, 1, 2, 3]
    assert meta["label_system"]["name"] == "brats2017-2021"
    air = np.all([make_arrays()[name] == 0 for name in MODALITIES], axis=0)
    assert meta["background"] == pytest.approx(air.mean())
    assert meta["background"] > 0.1
    assert set(meta["sha256"]) == {*MODALITIES, "seg"}
    assert meta["source"]["orientation"] == "RAS"
    assert "A_t1" not in json.dumps(meta)


def test_the_space_of_the_images_comes_back_as_it_was_stored(case: Case, tmp_path: Path) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    assert cached.source.shape == SHAPE
    assert json.loads(json.dumps(asdict(cached.source))) == cached.meta["source"]


def test_a_prediction_keeps_units_and_codes_of_the_files_of_its_case(case: Case, tmp_path: Path) -> None:
    """By what the cache remembers, as the files are not asked again; the table of NIfTI says 10 for mm and seconds."""
    path = case.images["t1"].path
    image = nib.load(path)
    image.header["xyzt_units"] = 10
    image.set_sform(image.affine, code=4)
    image.set_qform(image.affine, code=2)
    nib.save(image, path)
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    stored = cached.meta["source"]
    source = Source(**{**stored, "shape": tuple(stored["shape"])})
    write_labels(tmp_path / "A.nii.gz", restore(np.asarray(cached.label), cached), source)
    header = nib.load(tmp_path / "A.nii.gz").header
    assert [int(header[key]) for key in ("xyzt_units", "sform_code", "qform_code")] == [10, 4, 2]


def test_the_brain_is_known_of_a_skull_stripped_case_only(case: Case, tmp_path: Path) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    assert cached.brain is not None
    assert cached.brain[np.any(cached.image != 0, axis=0)].all()
    whole = {name: array + (name != "seg") for name, array in make_arrays().items()}
    assert prepare_case(write_case(tmp_path / "b", "B", whole), BRATS_2017, tmp_path / "cache").brain is None


def test_tumour_voxels_are_all_and_only_tumour(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    np.testing.assert_array_equal(cached.tumour, np.argwhere(cached.label))
    monkeypatch.setattr("fedbrats.data.preprocess.MAX_CENTRES", 10)
    few = prepare_case(case, BRATS_2017, tmp_path / "other").tumour
    assert len(np.unique(few, axis=0)) == 10
    assert cached.label[tuple(few.T.astype(int))].all()


def test_orientation_on_disk_does_not_matter(case: Case, tmp_path: Path) -> None:
    straight = prepare_case(case, BRATS_2017, tmp_path / "cache")
    turned = {name: array[::-1, :, ::-1].transpose(2, 0, 1) for name, array in make_arrays().items()}
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -1.5, -2.0, 1.0, 1.0
    affine[0, 3], affine[2, 3] = 2.0 * (SHAPE[0] - 1), 1.5 * (SHAPE[2] - 1)
    other = prepare_case(write_case(tmp_path / "turned", "A", turned, affine), BRATS_2017, tmp_path / "cache")
    assert other.meta["source"]["orientation"] == "ILA"
    np.testing.assert_array_equal(other.image, straight.image)
    np.testing.assert_array_equal(other.label, straight.label)
    assert other.meta["spacing"] == pytest.approx(straight.meta["spacing"])


def test_restore_undoes_the_crop(case: Case, tmp_path: Path) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    full = restore(np.array(cached.label), cached)
    np.testing.assert_array_equal(full, to_canonical(make_arrays()["seg"], BRATS_2017))
    with pytest.raises(ValueError, match=r"A: expected labels of shape \(7, 8, 7\)"):
        restore(full, cached)


def test_label_outside_the_brain_is_kept(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["seg"][11, 13, 9] = 2
    cached = prepare_case(write_case(tmp_path, "A", arrays), BRATS_2017, tmp_path / "cache")
    np.testing.assert_array_equal(
        restore(np.array(cached.label), cached), to_canonical(arrays["seg"], BRATS_2017)
    )


def test_key_follows_contents_and_settings_not_names(case: Case, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = prepare_case(case, BRATS_2017, cache)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    images = {k: ImageFile(tmp_path / "copy" / f.path.name) for k, f in case.images.items()}
    same = prepare_case(replace(case, name="B", images=images), BRATS_2017, cache)
    assert same.folder == first.folder
    assert same.name == "B"
    other = write_case(tmp_path / "data", "A", make_arrays() | {"t2": make_arrays(1)["t2"]})
    assert prepare_case(other, BRATS_2017, cache).folder != first.folder
    no_et = make_arrays()
    no_et["seg"][no_et["seg"] == 4] = 0
    plain = write_case(tmp_path / "plain", "C", no_et)
    folders = {prepare_case(plain, system, cache).folder for system in (BRATS_2017, BRATS_2023)}
    assert len(folders) == 2


def test_swapped_modalities_are_another_entry(case: Case, tmp_path: Path) -> None:
    swapped = {**case.images, "t1": case.images["t2"], "t2": case.images["t1"]}
    first = prepare_case(case, BRATS_2017, tmp_path / "cache")
    second = prepare_case(replace(case, images=swapped), BRATS_2017, tmp_path / "cache")
    np.testing.assert_array_equal(first.image[0], second.image[2])


def test_case_without_label_serves_prediction(tmp_path: Path) -> None:
    arrays = make_arrays()
    del arrays["seg"]
    cached = prepare_case(write_case(tmp_path, "A", arrays), BRATS_2017, tmp_path / "cache")
    assert cached.image.shape == (4, 7, 8, 7)
    assert cached.tumour.shape == (0, 3)
    assert cached.meta["volumes_ml"] is None
    with pytest.raises(ValueError, match="A: the case has no label"):
        _ = cached.label


def spoil(name: str, value: float) -> dict[str, np.ndarray]:
    arrays = make_arrays()
    arrays[name] = arrays[name].astype(np.float32)
    arrays[name][arrays[name] != 0] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (spoil("flair", 7), r"A_flair\.nii\.gz: all non-zero voxels equal 7"),
        (spoil("t1", 0), r"A_t1\.nii\.gz: every voxel is 0"),
        (spoil("t2", np.nan), r"A_t2\.nii\.gz: NaN or infinite"),
        (make_arrays() | {"t2": np.ones((3, 3, 3), np.int16)}, r"A_t2\.nii\.gz: shape \(3, 3, 3\) differs"),
        (make_arrays() | {"seg": np.full(SHAPE, 9, np.uint8)}, r"A_seg\.nii\.gz: unexpected labels \[9\]"),
    ],
)
def test_unusable_volume_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_case(write_case(tmp_path, "A", arrays), BRATS_2017, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "cases").iterdir())


def test_missing_modality_and_file_are_named(case: Case, tmp_path: Path) -> None:
    images = dict(case.images)
    images.pop("flair")
    with pytest.raises(ValueError, match="A: missing modality flair"):
        prepare_case(replace(case, images=images), BRATS_2017, tmp_path / "cache")
    case.images["t2"].path.unlink()
    with pytest.raises(ValueError, match=r"A_t2\.nii\.gz: no such file"):
        prepare_case(case, BRATS_2017, tmp_path / "cache")


def test_file_that_changes_while_it_is_read_is_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedbrats.data import preprocess

    def read_and_change(file: ImageFile, bounds: Bounds) -> tuple[np.ndarray, Source]:
        volume = read_file(file, bounds)
        os.utime(file.path, (1, 1))
        return volume

    read_file = preprocess.read_file
    monkeypatch.setattr(preprocess, "read_file", read_and_change)
    with pytest.raises(ValueError, match=r"A_t1ce\.nii\.gz.*: changed while the case A was read"):
        prepare_case(case, BRATS_2017, tmp_path / "cache")


def test_cached_case_travels_as_name_and_folder(case: Case, tmp_path: Path) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    _ = (cached.image, cached.label, cached.meta)
    message = pickle.dumps(cached)
    assert len(message) < 1000
    assert pickle.loads(message) == cached == CachedCase("A", cached.folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_failing_case_does_not_stop_the_others(tmp_path: Path, workers: int) -> None:
    cases = [write_case(tmp_path / name, name, make_arrays(seed)) for seed, name in enumerate("BAC")]
    cases[1].images["t1"].path.write_bytes(b"")
    calls: list[tuple[int, int]] = []
    results = prepare_cases(
        cases,
        dict.fromkeys("ABC", BRATS_2017),
        tmp_path / "cache",
        workers,
        lambda done, total: calls.append((done, total)),
    )
    assert list(results) == ["B", "A", "C"]
    assert isinstance(results["A"], ValueError)
    assert "A_t1.nii.gz" in str(results["A"])
    assert isinstance(results["B"], CachedCase)
    assert results["C"].image.shape == (4, 7, 8, 7)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_exception_of_a_case_does_not_keep_its_volumes(tmp_path: Path) -> None:
    case = write_case(tmp_path, "A", spoil("flair", 7))
    error = prepare_cases([case], {"A": BRATS_2017}, tmp_path / "cache", workers=1)["A"]
    assert isinstance(error, ValueError)
    link = error.__traceback__
    kept = []
    while link:
        kept += [name for name in link.tb_frame.f_locals if name in ("volumes", "values", "image")]
        link = link.tb_next
    assert not kept


def test_equal_names_and_unwritable_cache_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unique, found more than once: A"):
        prepare_cases([case, case], {"A": BRATS_2017}, tmp_path / "cache", workers=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="file: the cache cannot be written"):
        prepare_cases([case], {"A": BRATS_2017}, tmp_path / "file", workers=1)


@pytest.mark.skipif(not os.environ.get("FEDBRATS_REAL_DATA"), reason="real BraTS cases not at hand")
def test_real_case_at_the_int16_ceiling(tmp_path: Path) -> None:
    root = Path(os.environ["FEDBRATS_REAL_DATA"]) / "brats" / "Brats18_TCIA10_637_1"
    (case,) = find_cases(root)
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    assert cached.meta["full_shape"] == [240, 240, 155]
    assert np.isfinite(cached.image).all()
    for channel in cached.image:
        brain = channel[channel != 0].astype(np.float64)
        assert abs(brain.mean()) < 1e-3
        assert abs(brain.std() - 1) < 1e-3
    stored = nib.as_closest_canonical(nib.load(root / "Brats18_TCIA10_637_1_seg.nii.gz"))
    label = to_canonical(np.asarray(stored.dataobj).astype(np.uint8), BRATS_2017)
    np.testing.assert_array_equal(restore(np.array(cached.label), cached), label)
    voxels = regions_from_labels(label).sum(axis=(1, 2, 3))
    assert [cached.meta["volumes_ml"][name] for name in ("WT", "TC", "ET")] == pytest.approx(voxels / 1000)

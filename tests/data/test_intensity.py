"""Intensities: the clipping of DR-UNet104 and histogram matching, against values worked out by hand or by NumPy."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fedbrats.data import intensity
from fedbrats.data.cache import CachedCase, prepare_case
from fedbrats.data.cases import MODALITIES
from fedbrats.data.family_table import BRATS_2017
from fedbrats.data.finding import find_cases
from fedbrats.data.intensity import (
    LEVELS,
    matched_to,
    normaliser,
    quantiles,
    read_reference,
    reference_histogram,
    write_reference,
)

REAL = os.environ.get("FEDBRATS_REAL_DATA")


def case_of(root: Path, name: str, image: np.ndarray) -> CachedCase:
    """An entry with just an image."""
    folder = root / name
    folder.mkdir(parents=True)
    np.save(folder / "image.npy", image.astype(np.float16))
    return CachedCase(name, folder)


def ramp(root: Path, name: str, factor: float) -> CachedCase:
    """factor * (1 to 101) in each modality, so that level i is factor * (i + 1), and a background of 99 zeros."""
    values = np.concatenate([np.arange(1, 102), np.zeros(99)]) * factor
    mixed = np.random.default_rng(0).permuted(np.tile(values, (4, 1)), axis=1)
    return case_of(root, name, mixed.reshape(4, 5, 5, 8))


def test_zscore_is_the_cache_as_it_is(tmp_path: Path) -> None:
    assert normaliser("zscore", []) is None


def test_clip_is_equation_2_in_0_to_1(tmp_path: Path) -> None:
    clip = normaliser("clip", [])
    assert clip is not None
    values = np.array([[-4, -3, -1.5, 0, 0.75, 1.5, 3, 9]] * 4, np.float32)
    found = clip(CachedCase("any", tmp_path), values)
    expected = [0, 0, 63 / 254, 0, 159 / 254, 191 / 254, 1, 1]  # 127 - 64, background, 127 + 32, 127 + 64
    np.testing.assert_allclose(found, [expected] * 4, rtol=1e-6)
    assert found.dtype == np.float32
    assert values[0, 0] == -4  # left alone
    near = clip(CachedCase("any", tmp_path), np.full((4, 1), 1e-6, np.float32))
    np.testing.assert_allclose(near, 127 / 254, rtol=1e-5)


def test_percentiles_limit_to_those_of_the_whole_image_and_leave_the_background(tmp_path: Path) -> None:
    limit, case = (
        normaliser("percentiles", []),
        ramp(tmp_path, "a", 2.0),
    )  # 2 to 202: its 1 % is 4, its 99 % is 200
    assert limit is not None
    values = np.array([[-9, 2, 4, 5, 0, 199, 200, 202]] * 4, np.float32)
    found = limit(case, values)  # a part of the image
    np.testing.assert_array_equal(found, [[4, 4, 4, 5, 0, 199, 200, 200]] * 4)
    assert found.dtype == np.float32
    assert values[0, 0] == -9  # left alone
    image = np.array(case.image)
    own = [np.percentile(channel[channel != 0], (1, 99)) for channel in image.astype(np.float64)]
    whole = limit(case, image.astype(np.float32))
    assert [[c[c != 0].min(), c.max()] for c in whole] == [list(ends) for ends in own]


def test_minmax_is_0_to_1_between_the_1st_and_the_99th_percentile(tmp_path: Path) -> None:
    stretch = normaliser("minmax", [])
    assert stretch is not None
    for name, factor in (("a", 1), ("b", -0.5)):
        case = ramp(tmp_path, name, factor)  # percentile p is factor * (p + 1), or the other way round
        values = np.tile(np.array([0, 1, 2, 27, 51, 100, 101]) * factor, (4, 1)).astype(np.float32)
        expected = np.array([0, 0, 0, 25 / 98, 49 / 98, 1, 1])
        if factor < 0:
            expected[1:] = 1 - expected[1:]
        found = stretch(case, values)
        np.testing.assert_allclose(found, [expected] * 4, atol=1e-3)
        assert found.dtype == np.float32
    flat = case_of(tmp_path, "flat", np.full((4, 2, 2, 2), 3.0))
    assert not stretch(flat, np.full((4, 2), 3, np.float32)).any()


@pytest.mark.parametrize("levels", [2, 7, LEVELS])
def test_quantiles_are_those_of_numpy(tmp_path: Path, levels: int) -> None:
    rng = np.random.default_rng(0)
    image = np.round(rng.normal(0, 3, (4, 9, 8, 7)), 1).astype(np.float16)  # with ties
    image[rng.random(image.shape) < 0.5] = 0
    image[0, 0, 0, :3] = (-0.0, 60000, -6e-8)
    found = quantiles(case_of(tmp_path, "a", image).folder, levels)
    for row, channel in zip(found, image.astype(np.float64), strict=True):
        np.testing.assert_array_equal(row, np.quantile(channel[channel != 0], np.linspace(0, 1, levels)))


def test_quantiles_of_a_case_are_worked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [ramp(tmp_path, name, 1) for name in "ab"]
    read = []
    real = intensity.map_array

    def spy(path: Path, *rest: object) -> np.memmap:
        read.append(path)
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(intensity, "map_array", spy)
    for _ in range(3):
        match = normaliser("histogram", cases)
        assert match is not None
        match(cases[0], np.zeros((4, 2), np.float32))
    assert sorted(read) == [case.folder / "image.npy" for case in cases]
    with pytest.raises(ValueError, match="read-only"):
        quantiles(cases[0].folder)[0, 0] = 5


def test_reference_is_the_mean_of_quantiles_whatever_the_order(tmp_path: Path) -> None:
    cases = [ramp(tmp_path, "one", 1), ramp(tmp_path, "two", 2)]
    np.testing.assert_allclose(reference_histogram(cases), [1.5 * np.arange(1, 102)] * 4)
    rng = np.random.default_rng(0)
    noisy = [case_of(tmp_path, f"noisy{i}", rng.normal(size=(4, 5, 5, 5))) for i in range(8)]
    assert reference_histogram(noisy).tobytes() == reference_histogram(noisy[::-1]).tobytes()
    assert reference_histogram(cases[:1], levels=3).tolist() == [[1, 51, 101]] * 4


def test_values_go_to_the_same_quantile_of_the_reference(tmp_path: Path) -> None:
    one, two = ramp(tmp_path, "one", 1), ramp(tmp_path, "two", 2)
    match = normaliser("histogram", [one, two])
    assert match is not None
    stranger = ramp(tmp_path, "stranger", 3)  # not of the site
    for case, factor in ((one, 1.5), (two, 0.75), (stranger, 0.5)):
        values = np.asarray(case.image, np.float32)
        found = match(case, values)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values * factor, rtol=1e-6)
        part = (slice(None), slice(1, 3), 2, slice(0, 5))
        np.testing.assert_array_equal(match(case, values[part]), found[part])


def test_each_modality_has_its_own_histogram(tmp_path: Path) -> None:
    scale = np.array([1, 2, 4, 8])[:, None, None, None]
    plain = ramp(tmp_path, "plain", 1)
    scaled = case_of(tmp_path, "scaled", np.asarray(plain.image) * scale)
    match = normaliser("histogram", [scaled])
    assert match is not None
    values = np.asarray(plain.image, np.float32)
    np.testing.assert_allclose(match(plain, values), values * scale, rtol=1e-6)


def test_matching_undoes_any_monotone_change_and_keeps_background(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (4, 20, 20, 20))
    image[:, :5] = 0
    first = case_of(tmp_path, "first", image)
    second = case_of(tmp_path, "second", np.where(image == 0, 0, np.exp(image / 2) * 3))
    values = np.asarray(second.image, np.float32)
    found = matched_to(reference_histogram([first]))(second, values)
    assert not found[:, :5].any()
    np.testing.assert_allclose(
        np.quantile(found[:, 5:], [0.1, 0.5, 0.9]), np.quantile(image[:, 5:], [0.1, 0.5, 0.9]), atol=0.02
    )
    assert np.abs(found - image)[:, 5:].mean() < 0.02
    for before, after in zip(values[:, 5:].reshape(4, -1), found[:, 5:].reshape(4, -1), strict=True):
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="normalise=decimal: choose one of zscore, clip, minmax, percentiles, histogram"
    ):
        normaliser("decimal", [])
    with pytest.raises(ValueError, match="at least one case"):
        normaliser("histogram", [])
    image = np.ones((4, 3, 3, 3))
    image[2] = 0
    with pytest.raises(ValueError, match=r"dark/image.npy: every voxel of t2 is 0"):
        normaliser("histogram", [case_of(tmp_path, "dark", image)])


def test_reference_survives_its_file(tmp_path: Path) -> None:
    reference = np.sort(np.random.default_rng(0).normal(size=(4, LEVELS)), axis=1)
    write_reference(tmp_path / "reference.json", reference)
    assert read_reference(tmp_path / "reference.json").tobytes() == reference.tobytes()
    rows = json.loads((tmp_path / "reference.json").read_text())["reference_histogram"]
    assert list(rows) == list(MODALITIES)


def test_bad_reference_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    with pytest.raises(ValueError, match=r"reference.json: cannot be read"):
        read_reference(file)
    good = {name: [0.0, 1.0, 2.0] for name in MODALITIES}
    for content in (
        [],
        {"other": good},
        {"reference_histogram": {"t1": [0, 1]}},
        {"reference_histogram": good | {"t1": [0, 1]}},
        {"reference_histogram": good | {"t1": [0, 2, 1]}},
        {"reference_histogram": good | {"t1": [0, 1, float("nan")]}},
        {"reference_histogram": good | {"t1": [0, 1, float("inf")]}},
        {"reference_histogram": good | {"t1": [0, 1, "two"]}},
        {"reference_histogram": {name: [0.0] for name in MODALITIES}},
        {"reference_histogram": dict.fromkeys(MODALITIES, 1)},
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"reference.json: (cannot be read|expected)"):
            read_reference(file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"reference.json: cannot be read"):
        read_reference(file)


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")
def test_real_cases_get_the_reference_histogram(tmp_path: Path) -> None:
    found = [case for case in find_cases(f"{REAL}/brats") if case.name.startswith("Brats18")][:3]
    cases = [prepare_case(case, BRATS_2017, tmp_path) for case in found]
    match = normaliser("histogram", cases[:2])
    assert match is not None
    reference = reference_histogram(cases[:2], levels=11)
    for case in cases:
        values = np.asarray(case.image, np.float32)
        for name, before, after, wanted in zip(
            MODALITIES, values, match(case, values), reference, strict=True
        ):
            deciles = np.quantile(after[before != 0], np.linspace(0, 1, 11))
            np.testing.assert_allclose(deciles, wanted, atol=0.02, err_msg=f"{case.name} {name}")

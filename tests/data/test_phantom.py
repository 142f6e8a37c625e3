"""The phantom: reproducible files, plausible anatomy and contrast, institutions that differ as much as asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage as ndi

from fedbrats.config.schema import PhantomConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data import phantom
from fedbrats.data.cases import MODALITIES
from fedbrats.data.finding import find_cases
from fedbrats.data.phantom import PRESETS, write_phantom
from fedbrats.data.phantom_anatomy import annotated, draw_anatomy, make_grid, smooth_noise, voxel_size
from fedbrats.data.phantom_scanner import draw_scanner, random_stream, scan
from fedbrats.data.site_names import institution_from_name

DEMO = (64, 64, 48)
SMALL: dict[str, Any] = {"sites": {"CBICA": 2, "TMC": 1}, "shape": (32, 32, 24), "seed": 3}


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.rglob("*.nii.gz"))}


def patient(number: int, high_grade: bool = True, shift: float = 0.0, site: str = "A", shape=DEMO) -> tuple:
    """Anatomy and images of one case, without files."""
    grid = make_grid(shape)
    rng = random_stream(0, site, number)
    anatomy = draw_anatomy(grid, rng, high_grade, 1.0)
    return anatomy, scan(anatomy, grid, draw_scanner(0, site, shift), rng)


def test_same_settings_give_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    write_phantom(tmp_path / "one", **SMALL)
    write_phantom(tmp_path / "two", **SMALL, workers=2)
    assert len(contents(tmp_path / "one")) == 15
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_case_depends_on_no_other_case_or_institution(tmp_path: Path) -> None:
    write_phantom(tmp_path / "all", **SMALL)
    write_phantom(tmp_path / "fewer", **{**SMALL, "sites": {"TMC": 1, "TCIA05": 1}})
    everything, fewer = contents(tmp_path / "all"), contents(tmp_path / "fewer")
    assert fewer["BraTS19_TMC_1_1_t1.nii.gz"] == everything["BraTS19_TMC_1_1_t1.nii.gz"]
    assert fewer["BraTS19_TMC_1_1_seg.nii.gz"] != everything["BraTS19_CBICA_1_1_seg.nii.gz"]


def test_another_seed_gives_other_patients(tmp_path: Path) -> None:
    write_phantom(tmp_path / "a", **SMALL)
    write_phantom(tmp_path / "b", **{**SMALL, "seed": 4})
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)


def test_files_look_like_brats(tmp_path: Path) -> None:
    folders = write_phantom(tmp_path, sites={"TCIA02": 2}, shape=DEMO)
    assert [folder.name for folder in folders] == ["BraTS19_TCIA02_1_1", "BraTS19_TCIA02_2_1"]
    cases = find_cases(tmp_path)
    assert [institution_from_name(case.name) for case in cases] == ["TCIA02", "TCIA02"]
    for case in cases:
        assert set(case.images) == set(MODALITIES)
        assert case.label is not None
        for path in [case.label.path, *(image.path for image in case.images.values())]:
            image = nib.load(path)
            assert image.shape == DEMO
            assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
            assert image.get_data_dtype() == (np.uint8 if path.name.endswith("_seg.nii.gz") else np.int16)
            np.testing.assert_allclose(image.header.get_zooms(), 155 / 48, rtol=1e-6)
            assert path.read_bytes()[3:8] == b"\0\0\0\0\0"  # gzip: no file name, no time


def test_header_at_full_size_is_that_of_brats() -> None:
    image = nib.Nifti1Image.from_bytes(
        phantom.gzip.decompress(phantom._nifti(np.zeros((240, 240, 155), np.int16), 1.0))
    )
    np.testing.assert_array_equal(image.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert voxel_size((240, 240, 155)) == 1.0


def test_labels_of_high_and_low_grade() -> None:
    for number in range(5):
        high, low = patient(number)[0], patient(number, high_grade=False)[0]
        assert set(np.unique(high.labels)) == {0, 1, 2, 4}
        assert set(np.unique(low.labels)) == {0, 1, 2}
        assert not (high.labels > 0)[~high.mask].any()


def test_enhancing_rim_surrounds_the_core() -> None:
    for number in range(5):
        labels = patient(number)[0].labels
        beside_core = ndi.binary_dilation(labels == 1) & (labels != 1)
        assert set(np.unique(labels[beside_core])) == {4}


def test_images_are_zero_outside_the_brain_and_nowhere_inside() -> None:
    anatomy, images = patient(0, shift=1.0)
    assert 0.1 < anatomy.mask.mean() < 0.9
    for image in images.values():
        np.testing.assert_array_equal(image > 0, anatomy.mask)
        assert image.min() == 0


def test_contrast_of_each_modality() -> None:
    for number in range(3):
        anatomy, images = patient(number)
        healthy = anatomy.mask & (anatomy.labels == 0)
        where = {
            "wm": healthy & (anatomy.gm < 0.05) & (anatomy.csf < 0.05) & (anatomy.lesions < 0.05),
            "gm": healthy & (anatomy.gm > 0.8),
            "csf": healthy & (anatomy.csf > 0.8),
            "core": anatomy.labels == 1,
            "oedema": anatomy.labels == 2,
            "rim": anatomy.labels == 4,
        }
        mean = {m: {k: images[m][w].mean() for k, w in where.items()} for m in MODALITIES}
        t1, t1ce, t2, flair = (mean[m] for m in MODALITIES)
        assert t1["wm"] > t1["gm"] > t1["csf"]
        assert max(t1["core"], t1["rim"], t1["oedema"]) < t1["wm"]
        assert t1ce["rim"] > 1.3 * t1ce["wm"] > 1.3 * t1ce["core"]
        assert t2["csf"] > t2["oedema"] > t2["gm"] > t2["wm"]
        assert flair["oedema"] > 1.3 * flair["gm"] > 1.3 * flair["csf"]


def test_anatomy_keeps_its_size_when_the_image_is_finer() -> None:
    volumes = []
    for shape in (DEMO, (96, 96, 72)):
        anatomy = patient(1, shape=shape)[0]
        counts = [
            anatomy.mask.sum(),
            (anatomy.labels > 0).sum(),
            (anatomy.labels % 2 == 0)[anatomy.mask].sum(),
        ]
        volumes.append(np.array(counts) * voxel_size(shape) ** 3 / 1000)
    np.testing.assert_allclose(volumes[0], volumes[1], rtol=0.05)
    assert 900 < volumes[0][0] < 1800  # mL, an adult brain


def test_smooth_noise_has_unit_variance() -> None:
    grid = make_grid(DEMO)
    fields = np.stack([smooth_noise(grid, random_stream("noise", i), 20.0) for i in range(40)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.var() == pytest.approx(1, abs=0.05)
    assert np.abs(np.diff(fields, axis=1)).mean() < 0.3  # 3.2 mm apart


def site_statistics(shift: float) -> np.ndarray:
    """Mean of T1 and ratio of FLAIR oedema to white matter for each of four institutions, [4, 2]."""
    rows = []
    for site in ("A", "B", "C", "D"):
        values = []
        for number in range(6):
            anatomy, images = patient(number, shift=shift, site=site, shape=(32, 32, 24))
            white = anatomy.mask & (anatomy.gm + anatomy.csf < 0.1) & (anatomy.labels == 0)
            flair = images["flair"].astype(float)
            ratio = flair[anatomy.labels == 2].mean() / flair[white].mean()
            values.append([images["t1"][anatomy.mask].mean() / 400, ratio])
        rows.append(np.median(values, axis=0))
    return np.array(rows)


def test_shift_sets_the_distance_between_institutions() -> None:
    spread = {shift: site_statistics(shift).std(axis=0) for shift in (0.0, 1.0, 2.0)}
    assert (spread[0.0] < 0.12).all()
    assert (spread[1.0] > 2 * spread[0.0]).all()
    assert (spread[2.0] > spread[1.0]).all()


def test_without_shift_all_institutions_share_scanner_and_case_mix() -> None:
    scanners = [draw_scanner(7, site, 0.0) for site in ("CBICA", "TMC")]
    for key, value in vars(scanners[0]).items():
        np.testing.assert_array_equal(value, vars(scanners[1])[key])
    assert draw_scanner(7, "CBICA", 1.0).high_grade != draw_scanner(7, "TMC", 1.0).high_grade


def test_presets() -> None:
    demo, fets = PRESETS["demo"], PRESETS["fets2022"]
    assert len(demo) >= 6
    assert 60 <= sum(demo.values()) <= 80
    assert len(set(demo.values())) >= 5
    assert (len(fets), sum(fets.values())) == (23, 1251)
    assert list(fets.values())[:3] == [511, 382, 47]
    for name in [*demo, *fets]:
        assert institution_from_name(phantom.case_name(name, 1)) == name


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("sites", {"sites": "unheard"}),
        ("sites", {"sites": {}}),
        ("sites", {"sites": 5}),
        ("sites.TMC", {"sites": {"TMC": 0}}),
        ("sites.TMC", {"sites": {"TMC": 1.5}}),
        ("sites", {"sites": {"a_b": 1}}),
        ("shape", {"shape": (241, 240, 155)}),
        ("shape", {"shape": (64, 64, 8)}),
        ("shape", {"shape": (64, 64)}),
        ("shift", {"shift": -1}),
        ("shift", {"shift": float("nan")}),
        ("seed", {"seed": 1.5}),
    ],
)
def test_wrong_settings_name_their_key(tmp_path: Path, key: str, setting: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"data\.phantom\.{key}\b"):
        write_phantom(tmp_path / "new", **{**SMALL, **setting})
    assert not (tmp_path / "new").exists()


def test_a_finished_phantom_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_phantom(tmp_path, **SMALL)
    monkeypatch.setattr(phantom, "write_case", lambda *_: pytest.fail("written again"))
    assert write_phantom(tmp_path, **SMALL) == first
    assert json.loads((tmp_path / "phantom.json").read_text())["seed"] == 3


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    write_phantom(tmp_path, **SMALL)
    with pytest.raises(ConfigError, match=r"other settings \(shift differ"):
        write_phantom(tmp_path, **SMALL, shift=2.0)


def test_a_folder_with_other_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BraTS19_TCIA01_201_1").mkdir()
    with pytest.raises(ConfigError, match="BraTS19_TCIA01_201_1"):
        write_phantom(tmp_path, **SMALL)


def test_an_interrupted_phantom_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantom(tmp_path / "whole", **SMALL)
    written, original = [], phantom._nifti

    def killed(volume: np.ndarray, spacing: float) -> bytes:
        written.append(volume)
        if len(written) == 8:  # in the middle of the second case
            raise KeyboardInterrupt
        return original(volume, spacing)

    monkeypatch.setattr(phantom, "_nifti", killed)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "half", **SMALL)
    assert not (tmp_path / "half" / "phantom.json").exists()
    assert len(find_cases(tmp_path / "half")) == 1
    with pytest.raises(ConfigError, match="other settings"):
        write_phantom(tmp_path / "half", **{**SMALL, "seed": 9})
    monkeypatch.setattr(phantom, "_nifti", original)
    write_phantom(tmp_path / "half", **SMALL)
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")
    assert not list((tmp_path / "half").glob(".writing*"))


def test_default_config_is_the_demo() -> None:
    config = PhantomConfig()
    settings = phantom._check(config.sites, config.shape, config.shift, config.seed)
    assert settings.sites == PRESETS["demo"]
    assert settings.shape == DEMO


def enhances(folder: Path) -> bool:
    return bool((np.asarray(nib.load(folder / f"{folder.name}_seg.nii.gz").dataobj) == 4).any())


def labels_in(root: Path) -> dict[str, int]:
    return {name: int(label) for name, label in (line.split(",") for line in lines(root)[1:])}


def lines(root: Path) -> list[str]:
    return (root / "labels.csv").read_text().split()


def test_without_a_strength_there_is_no_label_and_the_note_is_the_old_one(tmp_path: Path) -> None:
    write_phantom(tmp_path, **SMALL)
    assert not (tmp_path / "labels.csv").exists()
    assert json.loads((tmp_path / "phantom.json").read_text()).keys() == {
        *("sites", "shape", "shift", "seed", "generator")
    }


def test_a_label_of_full_strength_decides_what_enhances(tmp_path: Path) -> None:
    folders = write_phantom(
        tmp_path, sites={"CBICA": 6, "TMC": 3}, shape=(32, 32, 24), label_strength=1.0, workers=1
    )
    known = labels_in(tmp_path)
    assert {folder.name: int(enhances(folder)) for folder in folders} == known
    for site, count in (("CBICA", 6), ("TMC", 2)):  # of every two one each
        assert sum(known[f"BraTS19_{site}_{n}_1"] for n in range(1, count + 1)) == count // 2


def test_a_label_of_no_strength_changes_no_image(tmp_path: Path) -> None:
    write_phantom(tmp_path / "plain", **SMALL)
    write_phantom(tmp_path / "labelled", **SMALL, label_strength=0.0)
    assert contents(tmp_path / "labelled") == contents(tmp_path / "plain")
    assert lines(tmp_path / "labelled")[0] == "case,label"
    assert len(labels_in(tmp_path / "labelled")) == 3
    with pytest.raises(ConfigError, match="label_strength differ"):
        write_phantom(tmp_path / "labelled", **SMALL, label_strength=0.5)


def test_labels_do_not_follow_the_grades_that_they_do_not_decide() -> None:
    numbers = range(1, 401)
    labels = np.array([phantom.label_of(0, "CBICA", n) for n in numbers])
    start = random_stream(0, "CBICA", "grades").random()
    grades = np.array([(start + n * (np.sqrt(5) - 1) / 2) % 1 < 0.5 for n in numbers])
    assert labels.mean() == 0.5
    assert abs(np.corrcoef(labels, grades)[0, 1]) < 0.15  # three standard errors


@pytest.mark.parametrize("strength", [-0.1, 1.1, "much", float("nan")])
def test_a_strength_beyond_its_ends_is_refused(tmp_path: Path, strength: object) -> None:
    with pytest.raises(ConfigError, match=r"label_strength must be a number from 0 \(chance\) to 1"):
        write_phantom(tmp_path / "new", **SMALL, label_strength=strength)  # type: ignore[arg-type]


def test_annotators_change_no_other_file_and_not_each_other(tmp_path: Path) -> None:
    for folder, annotators in (("none", None), ("two", 2), ("three", 3)):
        write_phantom(tmp_path / folder, **SMALL, annotators=annotators)
    none, two, three = (contents(tmp_path / folder) for folder in ("none", "two", "three"))
    assert len(three) == 15 + 3 * 3
    assert none.items() < two.items() < three.items()
    masks = [nib.load(f) for f in sorted((tmp_path / "three" / "BraTS19_TMC_1_1").glob("*annotator*"))]
    voxels = [np.asarray(mask.dataobj) for mask in masks]
    assert [np.unique(v).tolist() for v in voxels] == [[0, 1]] * 3
    assert not any(np.array_equal(voxels[i], voxels[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_an_outline_of_an_annotator_moves_by_the_stated_distance() -> None:
    """At depth d mm the probability to be marked is Phi(d / 3 mm): .159, .5 and .841 at -3, 0 and 3."""
    grid, shares = make_grid(DEMO), []
    anatomy = draw_anatomy(grid, random_stream(0, "A", 1), True, 1.0)
    marked = [annotated(grid, random_stream(0, "annotator", one), anatomy) for one in range(60)]
    for depth in (-3, 0, 3):
        there = anatomy.mask & (np.abs(anatomy.depth - depth) < 0.3)
        shares.append(float(np.mean([mask[there].mean() for mask in marked])))
    assert shares == pytest.approx([0.159, 0.5, 0.841], abs=0.04)


@pytest.mark.parametrize("annotators", [1, 10, 2.5, True])
def test_a_wrong_number_of_annotators_is_refused(tmp_path: Path, annotators: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.phantom\.annotators must be a whole number from 2 to 9"):
        write_phantom(tmp_path, **SMALL, annotators=annotators)

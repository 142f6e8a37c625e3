"""One volume stored in many ways is one array in memory and goes back to the same place in the world."""

import gzip
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fedbrats.data.grids import forms_apart
from fedbrats.data.nifti import (
    Source,
    canonical_affine,
    read_header,
    read_volume,
    spacing_of,
    write_labels,
)
from fedbrats.data.stream import VolumeError
from fedbrats.inference.maps import write_map

SHAPE = (6, 5, 4)
SPACING = (1.0, 0.9, 2.5)
STRAIGHT = np.diag([*SPACING, 1.0])
STRAIGHT[:3, 3] = (-11, 7, 3)
OBLIQUE = STRAIGHT.copy()
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (8, -12, 15), degrees=True).as_matrix() @ STRAIGHT[:3, :3]


def base_volume() -> np.ndarray:
    return np.arange(1, np.prod(SHAPE) + 1, dtype=np.int16).reshape(SHAPE)


def stored(data: np.ndarray, affine: np.ndarray, order: tuple[int, ...], flips: tuple[bool, ...]):
    """Store a RAS volume with permuted and reversed axes; the affine is worked out without nibabel."""
    out = data.transpose(order)
    to_ras = np.zeros((4, 4))
    to_ras[3, 3] = 1
    for new, old in enumerate(order):
        to_ras[old, new] = -1 if flips[new] else 1
        to_ras[old, 3] = data.shape[old] - 1 if flips[new] else 0
        if flips[new]:
            out = np.flip(out, new)
    return out.copy(), affine @ to_ras


def world_points(data: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], int]:
    voxels = np.argwhere(data)
    points = np.column_stack([voxels, np.ones(len(voxels))]) @ affine.T
    return {tuple(p): int(v) for p, v in zip(points[:, :3].round(3) + 0.0, data[data > 0], strict=True)}


WAYS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_every_storage_order_gives_one_array_and_one_place(tmp_path: Path, affine: np.ndarray) -> None:
    volume = base_volume()
    labels = (volume % 4).astype(np.uint8)
    truth = world_points(labels, affine)
    seen = set()
    for order, flips in WAYS:  # 48 of them; RAI, LPI and permuted axes are among them
        data, there = stored(volume, affine, order, flips)
        path = tmp_path / "in.nii"
        nib.save(nib.Nifti1Image(data, there), path)
        read, source = read_volume(path)
        seen.add(source.orientation)
        assert np.array_equal(read, volume)
        assert read.flags.c_contiguous
        assert np.allclose(canonical_affine(source), affine, atol=1e-5)
        assert spacing_of(source) == pytest.approx(SPACING, abs=1e-5)
        assert source.shape == data.shape
        write_labels(tmp_path / "out.nii", labels, source)
        written = nib.load(tmp_path / "out.nii")
        assert written.shape == data.shape
        assert np.allclose(written.affine, there, atol=1e-5)
        assert written.get_data_dtype() == np.uint8
        assert world_points(np.asarray(written.dataobj), written.affine) == pytest.approx(truth)
    # nibabel names an axis by where it ends, ITK and AFNI by where it starts: RAI there is LPS here, LPI is RAS
    assert {"LPS", "RAS"} <= seen
    assert len(seen) == 48


def test_source_survives_json(tmp_path: Path) -> None:
    data, there = stored(base_volume(), OBLIQUE, (2, 0, 1), (True, False, True))
    nib.save(nib.Nifti1Image(data, there), tmp_path / "in.nii.gz")
    _, source = read_volume(tmp_path / "in.nii.gz")
    again = json.loads(json.dumps(asdict(source)))
    assert tuple(again["shape"]) == source.shape
    assert again["affine"] == source.affine


def test_channel_of_a_4d_file(tmp_path: Path) -> None:
    volume = base_volume()
    data, there = stored(volume, STRAIGHT, (1, 0, 2), (True, False, False))
    nib.save(nib.Nifti1Image(np.stack([data, data * 2, data * 3], -1), there), tmp_path / "a.nii.gz")
    for channel in range(3):
        read, source = read_volume(tmp_path / "a.nii.gz", channel)
        assert np.array_equal(read, volume * (channel + 1))
        assert source.shape == data.shape
    with pytest.raises(VolumeError, match=r"a\.nii\.gz.*3D"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(VolumeError, match="channel 3"):
        read_volume(tmp_path / "a.nii.gz", 3)


def test_a_4d_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    for factor in (1, 5):
        nib.save(nib.Nifti1Image(np.stack([base_volume() * factor] * (factor + 1), -1), STRAIGHT), path)
        assert np.array_equal(read_volume(path, 1)[0], base_volume() * factor)


def test_scaled_integers_are_read_as_their_values(tmp_path: Path) -> None:
    scaled = nib.Nifti1Image(base_volume(), STRAIGHT)
    scaled.header.set_slope_inter(0.5, 10)
    nib.save(scaled, tmp_path / "a.nii.gz")
    assert np.allclose(
        read_volume(tmp_path / "a.nii.gz")[0], np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    )


def test_world_space_known_or_not(tmp_path: Path) -> None:
    blank = nib.Nifti1Image(base_volume(), None)
    nib.save(blank, tmp_path / "blank.nii")
    nib.save(nib.Nifti1Image(base_volume(), STRAIGHT), tmp_path / "set.nii")
    assert not read_header(tmp_path / "blank.nii").has_world_space
    assert read_header(tmp_path / "set.nii").has_world_space


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("damage", ["empty", "half", "header", "text", "missing"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"case_t1{suffix}"
    noise = np.random.default_rng(0).integers(0, 9999, (20, 20, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, STRAIGHT), path)
    whole = path.read_bytes()
    parts = {"empty": b"", "half": whole[: len(whole) // 2], "header": whole[:50], "text": b"no volume" * 100}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(parts[damage])
    with pytest.raises(VolumeError, match="case_t1"):
        read_volume(path)


@pytest.mark.parametrize("damage", ["flipped bit", "lost end"])
def test_damage_that_only_the_gzip_check_sum_shows(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "case_t1.nii.gz"
    volume = np.random.default_rng(0).integers(0, 9999, (64, 64, 64)).astype(np.int16)
    packed = gzip.compress(
        nib.Nifti1Image(volume, STRAIGHT).to_bytes(), 0
    )  # level 0 stores bytes as they are
    flipped = packed[:300_000] + bytes([packed[300_000] ^ 1]) + packed[300_001:]
    path.write_bytes(flipped if damage == "flipped bit" else packed[:-4])
    with pytest.raises(VolumeError, match=r"case_t1\.nii\.gz"):
        read_volume(path)


def test_singular_affine_is_refused(tmp_path: Path) -> None:
    bad = nib.Nifti1Image(base_volume(), STRAIGHT)
    raw = bytearray(bad.to_bytes())
    raw[280:296] = raw[296:312]  # srow_x = srow_y
    (tmp_path / "a.nii").write_bytes(bytes(raw))
    with pytest.raises(VolumeError, match="affine"):
        read_volume(tmp_path / "a.nii")


def test_write_refuses_what_does_not_fit_and_leaves_nothing(tmp_path: Path) -> None:
    data, there = stored(base_volume(), STRAIGHT, (2, 1, 0), (False, False, False))
    nib.save(nib.Nifti1Image(data, there), tmp_path / "in.nii")
    _, source = read_volume(tmp_path / "in.nii")
    good = np.zeros(SHAPE, np.uint8)
    for labels, name in [(good[:-1], "a.nii"), (good.astype(int), "a.nii"), (good, "a.img")]:
        with pytest.raises(ValueError, match=name):
            write_labels(tmp_path / "out" / name, labels, source)
    assert not (tmp_path / "out").exists()
    write_labels(tmp_path / "out" / "b.nii.gz", good, source)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.nii.gz"]


@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (2, 4), (0, 2), (1, 0)])
@pytest.mark.parametrize("units", [("mm", "sec"), ("micron", None), (None, None)])
def test_written_volumes_keep_codes_and_units_of_their_source(
    tmp_path: Path, qform: int, sform: int, units: tuple[str | None, str | None]
) -> None:
    original = nib.Nifti1Image(base_volume(), STRAIGHT)
    original.set_sform(STRAIGHT if sform else None, code=sform)
    original.set_qform(STRAIGHT if qform else None, code=qform)
    original.header.set_xyzt_units(*units)
    nib.save(original, tmp_path / "in.nii")
    _, source = read_volume(tmp_path / "in.nii")
    source = Source(**json.loads(json.dumps(asdict(source))))
    labels = np.full(SHAPE, 4, np.uint8)
    write_labels(tmp_path / "out.nii", labels, source)
    write_map(tmp_path / "map.nii", labels.astype(np.float32), source)
    for name in ("out.nii", "map.nii"):
        written = nib.load(tmp_path / name)
        assert int(written.header["sform_code"]) == sform
        assert int(written.header["qform_code"]) == qform
        assert written.header.get_xyzt_units() == original.header.get_xyzt_units()
        np.testing.assert_allclose(written.affine, nib.load(tmp_path / "in.nii").affine, atol=1e-5)
        assert np.array_equal(np.asarray(written.dataobj), labels)


def test_a_qform_that_differs_is_kept_and_told(tmp_path: Path) -> None:
    moved = STRAIGHT.copy()
    moved[0, 3] += 3
    original = nib.Nifti1Image(base_volume(), STRAIGHT)
    original.set_sform(STRAIGHT, code=1)
    original.set_qform(moved, code=1)
    nib.save(original, tmp_path / "in.nii")
    _, source = read_volume(tmp_path / "in.nii")
    assert forms_apart(source) == pytest.approx(3)
    write_labels(tmp_path / "out.nii", np.full(SHAPE, 4, np.uint8), source)
    written = nib.load(tmp_path / "out.nii")
    np.testing.assert_allclose(written.get_qform(), moved, atol=1e-5)
    np.testing.assert_allclose(written.get_sform(), STRAIGHT, atol=1e-5)
    original.set_qform(STRAIGHT + np.eye(4)[:, [1, 2, 3, 0]] * 0.004, code=1)
    nib.save(original, tmp_path / "in.nii")
    assert forms_apart(read_volume(tmp_path / "in.nii")[1]) == 0


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("a.nii.gz", "plain", r"a\.nii\.gz: its content is not gzip, .*rename it to end in \.nii$"),
        ("a.nii", "packed", r"a\.nii: its content is gzip, .*rename it to end in \.nii\.gz"),
        ("a.nii.gz", "pointer", r"a\.nii\.gz: a pointer of Git LFS .*git lfs pull"),
        ("a.nii", "pointer", r"a\.nii: a pointer of Git LFS"),
        ("a.nii.gz", "page", r"a\.nii\.gz: no gzip file, .*begins with b'<!DOCTYPE html"),
    ],
)
def test_copies_that_are_no_volume_are_named_with_the_fix(
    tmp_path: Path, name: str, kind: str, words: str
) -> None:
    plain = nib.Nifti1Image(base_volume(), STRAIGHT).to_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    content = {
        "plain": plain,
        "packed": gzip.compress(plain),
        "pointer": pointer,
        "page": b"<!DOCTYPE html>" * 99,
    }
    (tmp_path / name).write_bytes(content[kind])
    for read in (read_volume, read_header):
        with pytest.raises(VolumeError, match=words):
            read(tmp_path / name)


def test_letter_case_of_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "A.NII.GZ").write_bytes(gzip.compress(nib.Nifti1Image(base_volume(), STRAIGHT).to_bytes()))
    assert read_volume(tmp_path / "A.NII.GZ")[0].shape == SHAPE

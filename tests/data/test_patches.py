"""Patches: where they lie, that they hold what the volume holds there, that the seed alone decides."""

import tracemalloc
from pathlib import Path

import monai.data
import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment
from fedbrats.data.cache import CachedCase
from fedbrats.data.entries import write_entry
from fedbrats.data.patches import draw_batch


def cached_case(root: Path, name: str, image: np.ndarray, label: np.ndarray | None) -> CachedCase:
    """An entry with just what the patches need."""
    (root / "building").mkdir(parents=True, exist_ok=True)
    (root / "cases").mkdir(exist_ok=True)
    arrays = {"image.npy": image.astype(np.float16), "tumour.npy": np.zeros((0, 3), np.int16)}
    if label is not None:
        arrays |= {"label.npy": label, "tumour.npy": np.argwhere(label).astype(np.int16)}
    write_entry(root / "cases" / name, arrays, {"labels": None if label is None else [0]}, root)
    return CachedCase(name, root / "cases" / name)


def positions(shape: tuple[int, int, int]) -> np.ndarray:
    """An image [4, *shape] whose voxels tell where they are: x, y, z (from 1), and 1 inside the volume."""
    grid = np.stack(np.meshgrid(*(np.arange(1, n + 1) for n in shape), indexing="ij"))
    return np.concatenate([grid, np.ones((1, *shape), int)])


@pytest.fixture
def tumour_case(tmp_path: Path) -> CachedCase:
    """Tumour of few voxels, all far enough from the border for a patch of 8 voxels around them."""
    label = np.zeros((24, 20, 16), np.uint8)
    label[10:12, 9, 8] = (1, 2)
    label[14, 12, 6] = 3
    return cached_case(tmp_path, "tumour", positions(label.shape), label)


def test_patch_is_a_slice_of_the_volume(tumour_case: CachedCase) -> None:
    rng = np.random.default_rng(0)
    images, labels = draw_batch([tumour_case], rng, patch=(8, 6, 4), batch=20, tumour_share=0.5)
    assert images.shape == (20, 4, 8, 6, 4)
    assert images.dtype == np.float32
    assert labels.shape == (20, 8, 6, 4)
    assert labels.dtype == np.uint8
    full_image, full_label = np.array(tumour_case.image), np.array(tumour_case.label)
    for image, label in zip(images, labels):
        x, y, z = (int(v) - 1 for v in image[:3, 0, 0, 0])
        np.testing.assert_array_equal(image, full_image[:, x : x + 8, y : y + 6, z : z + 4])
        np.testing.assert_array_equal(label, full_label[x : x + 8, y : y + 6, z : z + 4])


@pytest.mark.parametrize(
    ("batch", "share", "expected"),
    [(2, 0.5, 1), (3, 1 / 3, 1), (4, 1 / 3, 2), (1, 0.4, 1), (100, 0.07, 7), (5, 1, 5), (5, 0, 0)],
)
def test_first_patches_have_tumour_at_the_centre(
    tumour_case: CachedCase, batch: int, share: float, expected: int
) -> None:
    _, labels = draw_batch(
        [tumour_case], np.random.default_rng(1), patch=(8, 8, 8), batch=batch, tumour_share=share
    )
    assert (labels[:expected, 4, 4, 4] > 0).all()
    assert not labels[expected : expected + 1, 4, 4, 4].any()


def test_every_place_and_every_tumour_voxel_is_drawn(tumour_case: CachedCase) -> None:
    rng = np.random.default_rng(2)
    images, labels = draw_batch([tumour_case], rng, patch=(8, 8, 8), batch=600, tumour_share=0.5)
    assert set(labels[:300, 4, 4, 4]) == {1, 2, 3}
    corners = images[300:, :3, 0, 0, 0]
    for axis, size in enumerate(tumour_case.label.shape):
        assert set(corners[:, axis]) == set(range(1, size - 8 + 2))


def test_tumour_at_the_border_is_inside_a_full_patch(tmp_path: Path) -> None:
    label = np.zeros((12, 12, 12), np.uint8)
    label[0, 11, 5] = 2
    case = cached_case(tmp_path, "border", positions(label.shape), label)
    images, labels = draw_batch([case], np.random.default_rng(0), patch=(8, 8, 8), batch=3, tumour_share=1)
    assert (labels[:, 0, 7, 4] == 2).all()
    assert (images[:, 3] == 1).all()


def test_volume_smaller_than_the_patch_lies_amid_zeros(tmp_path: Path) -> None:
    label = np.zeros((5, 20, 4), np.uint8)
    label[2, 10, 1] = 3
    case = cached_case(tmp_path, "small", positions(label.shape), label)
    images, labels = draw_batch([case], np.random.default_rng(0), patch=(8, 8, 8), batch=4, tumour_share=0.5)
    inside = np.zeros((8, 8, 8), bool)
    inside[2:7, :, 2:6] = True
    for image in images:
        np.testing.assert_array_equal(image[3], inside)
    np.testing.assert_array_equal(images[0, 0][:, 0, 2], [0, 0, 1, 2, 3, 4, 5, 0])
    assert labels[0, 4, 4, 3] == 3


def test_empty_label_gives_patches_of_background(tmp_path: Path) -> None:
    case = cached_case(tmp_path, "healthy", positions((9, 9, 9)), np.zeros((9, 9, 9), np.uint8))
    images, labels = draw_batch([case], np.random.default_rng(0), patch=(4, 4, 4), batch=50, tumour_share=1)
    assert not labels.any()
    assert set(images[:, 0, 0, 0, 0]) == {1, 2, 3, 4, 5, 6}


def test_cases_are_drawn_uniformly(tmp_path: Path) -> None:
    label = np.zeros((6, 6, 6), np.uint8)
    cases = [cached_case(tmp_path, str(i), np.full((4, 6, 6, 6), i), label) for i in range(4)]
    images, _ = draw_batch(cases, np.random.default_rng(0), patch=(2, 2, 2), batch=2000, tumour_share=0.5)
    counts = np.bincount(images[:, 0, 0, 0, 0].astype(int))
    assert counts.sum() == 2000
    assert abs(counts - 500).max() < 80  # four standard deviations


def test_batches_depend_on_the_seed_only(tumour_case: CachedCase) -> None:
    def draw(seed: int) -> list[bytes]:
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(3):
            images, labels = draw_batch([tumour_case], rng, patch=(8, 8, 8), batch=3, tumour_share=0.5)
            new_images, new_labels = augment(torch.from_numpy(images), torch.from_numpy(labels), rng)
            found += [new_images.numpy().tobytes(), new_labels.numpy().tobytes()]
        return found

    first = draw(5)
    np.random.seed(0)  # noqa: NPY002 - global states must not matter
    torch.manual_seed(0)
    monai.data.set_track_meta(True)
    assert draw(5) == first
    assert draw(6) != first
    assert not monai.data.get_track_meta()


def test_only_the_patch_is_read(tmp_path: Path) -> None:
    shape = (256, 256, 256)
    folder = tmp_path / "big"
    folder.mkdir()
    # Files with holes: 128 MiB and 16 MiB that take no room on disk.
    image = np.lib.format.open_memmap(folder / "image.npy", "w+", np.float16, (4, *shape))
    image[:, 100:108, 100:108, 100:108] = 1
    np.lib.format.open_memmap(folder / "label.npy", "w+", np.uint8, shape)[104, 104, 104] = 1
    np.save(folder / "tumour.npy", np.array([[104, 104, 104]], np.int16))
    case = CachedCase("big", folder)
    case.__dict__["meta"] = {"labels": [0, 1]}
    tracemalloc.start()
    images, labels = draw_batch([case], np.random.default_rng(0), patch=(8, 8, 8), batch=1, tumour_share=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert (images == 1).all()
    assert labels.sum() == 1


AXES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}  # of X, Y, Z in a slice


@pytest.mark.parametrize("plane", AXES)
def test_slice_is_that_of_the_volume(tumour_case: CachedCase, plane: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = draw_batch([tumour_case], rng, patch=(8, 6), batch=400, tumour_share=0.5, planes=[plane])
    assert images.shape == (400, 4, 8, 6)
    assert images.dtype == np.float32
    assert labels.shape == (400, 8, 6)
    assert labels.dtype == np.uint8
    full = np.array(tumour_case.label)
    (normal,) = {0, 1, 2} - set(AXES[plane])
    for image, label in zip(images, labels):
        assert (image[3] == 1).all()
        corner = image[:3, 0, 0].astype(int)
        steps = (image[:3, 1, 0] - corner, image[:3, 0, 1] - corner)
        for axis, step in zip(AXES[plane], steps):
            np.testing.assert_array_equal(step, np.eye(3)[axis])
        part = [slice(v - 1, v) for v in corner]
        part[AXES[plane][0]] = slice(corner[AXES[plane][0]] - 1, corner[AXES[plane][0]] + 7)
        part[AXES[plane][1]] = slice(corner[AXES[plane][1]] - 1, corner[AXES[plane][1]] + 5)
        np.testing.assert_array_equal(label, full[tuple(part)].squeeze(normal))
    assert set(labels[:200, 4, 3]) == {1, 2, 3}  # tumour at the centre, every voxel of it
    assert set(images[200:, normal, 0, 0]) == set(range(1, full.shape[normal] + 1))  # every slice


def test_every_plane_is_drawn_alike(tumour_case: CachedCase) -> None:
    rng = np.random.default_rng(0)
    images, labels = draw_batch(
        [tumour_case], rng, patch=(8, 8), batch=900, tumour_share=1, planes=("sagittal", "axial", "coronal")
    )
    assert labels[:, 4, 4].all()
    moves = (images[:, :3, 1, 0] != images[:, :3, 0, 0]) | (images[:, :3, 0, 1] != images[:, :3, 0, 0])
    counts = (~moves).sum(axis=0)  # the coordinate that does not change is that of the normal
    assert counts.sum() == 900
    assert abs(counts - 300).max() < 60  # four standard deviations


def test_slice_smaller_than_the_patch_lies_amid_zeros(tmp_path: Path) -> None:
    label = np.zeros((5, 20, 4), np.uint8)
    label[2, 10, 1] = 3
    case = cached_case(tmp_path, "small", positions(label.shape), label)
    rng = np.random.default_rng(0)
    images, labels = draw_batch([case], rng, patch=(8, 8), batch=4, tumour_share=1, planes=["coronal"])
    inside = np.zeros((8, 8), bool)
    inside[2:7, 2:6] = True
    for image, truth in zip(images, labels):
        np.testing.assert_array_equal(image[3], inside)
        np.testing.assert_array_equal(image[1], 11 * inside)
        assert truth[4, 3] == 3


def test_volumes_take_their_random_numbers_in_the_order_they_always_did(tumour_case: CachedCase) -> None:
    rng, twin = np.random.default_rng(7), np.random.default_rng(7)
    images, _ = draw_batch([tumour_case], rng, patch=(8, 6, 4), batch=2, tumour_share=0.5)
    assert twin.integers(1) == 0  # the case
    centre = tumour_case.tumour[twin.integers(3)]
    np.testing.assert_array_equal(images[0, :3, 4, 3, 2], centre + 1)
    assert twin.integers(1) == 0
    start = twin.integers([17, 15, 13])
    np.testing.assert_array_equal(images[1, :3, 0, 0, 0], start + 1)
    assert rng.bit_generator.state == twin.bit_generator.state


def test_one_plane_takes_no_random_number(tumour_case: CachedCase) -> None:
    rng, twin = np.random.default_rng(7), np.random.default_rng(7)
    images, _ = draw_batch([tumour_case], rng, patch=(24, 20), batch=1, tumour_share=0)
    twin.integers(1)
    start = twin.integers([1, 1, 16])
    assert images[0, 2, 0, 0] == start[2] + 1
    assert rng.bit_generator.state == twin.bit_generator.state


@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8)])
def test_what_was_read_is_normalised_and_the_margin_stays_zero(
    tmp_path: Path, patch: tuple[int, ...]
) -> None:
    label = np.zeros((5, 20, 4), np.uint8)
    case = cached_case(tmp_path, "small", positions(label.shape), label)
    seen = []

    def normalise(given: CachedCase, values: np.ndarray) -> np.ndarray:
        seen.append((given.name, values.dtype, len(values)))
        return values + np.float32(100)

    options = {"patch": patch, "batch": 2, "tumour_share": 0.5}
    plain, labels = draw_batch([case], np.random.default_rng(0), **options)
    images, same = draw_batch([case], np.random.default_rng(0), normalise=normalise, **options)
    np.testing.assert_array_equal(images, np.where(plain[:, 3:] == 1, plain + 100, 0))
    np.testing.assert_array_equal(same, labels)
    assert seen == [("small", np.float32, 4)] * 2


def test_bad_arguments_are_refused(tumour_case: CachedCase, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no cases"):
        draw_batch([], rng, patch=(8, 8, 8), batch=1, tumour_share=0.5)
    for patch, batch, share in [
        ((8,), 1, 0.5),
        ((8, 8, 8, 8), 1, 0.5),
        ((8, 0), 1, 0.5),
        ((8, 8, 0), 1, 0.5),
        ((8, 8, 8), 0, 0.5),
        ((8, 8, 8), 1, 2),
    ]:
        with pytest.raises(ValueError, match="expected patch of 3 positive sizes"):
            draw_batch([tumour_case], rng, patch=patch, batch=batch, tumour_share=share)
    for planes in ([], ["axial", "oblique"]):
        with pytest.raises(ValueError, match=r"planes=.*sagittal, coronal, axial"):
            draw_batch([tumour_case], rng, patch=(8, 8), batch=1, tumour_share=0.5, planes=planes)
    unlabelled = cached_case(tmp_path, "unlabelled", positions((9, 9, 9)), None)
    with pytest.raises(ValueError, match="unlabelled: the case has no label"):
        draw_batch([unlabelled], rng, patch=(4, 4, 4), batch=1, tumour_share=0.5)


def _parts_case(root: Path, sample: int = 1) -> CachedCase:
    """A box of oedema, a few voxels of NCR and one of ET in it; every `sample`-th tumour voxel is kept as a centre."""
    label = np.zeros((24, 20, 16), np.uint8)
    label[8:16, 6:14, 5:11] = 2
    label[9, 8, 6:9] = 1
    label[14, 12, 8] = 3
    arrays = {
        "image.npy": positions(label.shape).astype(np.float16),
        "label.npy": label,
        "tumour.npy": np.argwhere(label)[::sample].astype(np.int16),
    }
    for folder in ("building", "cases"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_entry(root / "cases" / "parts", arrays, {"labels": [0, 1, 2, 3]}, root)
    return CachedCase("parts", root / "cases" / "parts")


def _middles(case: CachedCase, centre: str, patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Label and position of the voxel at the centre of each patch."""
    options = {"patch": (4, 4, 4), "batch": patches, "tumour_share": 1.0, "tumour_centre": centre}
    images, labels = draw_batch([case], np.random.default_rng(3), **options)
    return labels[:, 2, 2, 2], images[:, :3, 2, 2, 2].astype(int) - 1


@pytest.mark.parametrize("sample", [1, 100])
def test_a_random_class_is_as_often_the_smallest_part(tmp_path: Path, sample: int) -> None:
    case = _parts_case(tmp_path, sample)
    found = np.bincount(_middles(case, "class", 900)[0], minlength=4)
    assert found[0] == 0
    assert (abs(found[1:] - 300) < 4 * np.sqrt(900 * 2 / 9)).all()  # four standard deviations
    any_voxel = np.bincount(_middles(_parts_case(tmp_path / "all"), "any", 900)[0], minlength=4)
    assert any_voxel[2] > 880  # 380 of 384 voxels are oedema


def test_a_class_that_a_case_does_not_have_is_not_drawn(tumour_case: CachedCase, tmp_path: Path) -> None:
    label = np.zeros((12, 12, 12), np.uint8)
    label[4:6, 5, 5] = 3
    for folder in ("building", "cases"):
        (tmp_path / folder).mkdir(exist_ok=True)
    arrays = {"image.npy": positions(label.shape).astype(np.float16), "label.npy": label}
    arrays["tumour.npy"] = np.argwhere(label).astype(np.int16)
    write_entry(tmp_path / "cases" / "et", arrays, {"labels": [0, 3]}, tmp_path)
    assert set(_middles(CachedCase("et", tmp_path / "cases" / "et"), "class", 50)[0]) == {3}


def test_a_box_is_cut_around_the_middle_of_the_tumour(tmp_path: Path) -> None:
    _, places = _middles(_parts_case(tmp_path), "box", 5)
    assert (places == (11, 9, 7)).all()  # (8 + 15) // 2, (6 + 13) // 2, (5 + 10) // 2


def test_an_unknown_centre_is_refused(tumour_case: CachedCase) -> None:
    with pytest.raises(ValueError, match="tumour_centre=lesion: choose one of any, class, box"):
        _middles(tumour_case, "lesion", 1)

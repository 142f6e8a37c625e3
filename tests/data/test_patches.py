"""Patches: where they lie, that they hold what the volume holds there, that the seed alone decides."""

import tracemalloc
from pathlib import Path

import monai.data
import numpy as np
import pytest
import torch

from fedbrats.data.cache import CachedCase
from fedbrats.data.entries import write_entry
from fedbrats.data.patches import augment, draw_batch


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


def test_bad_arguments_are_refused(tumour_case: CachedCase, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no cases"):
        draw_batch([], rng, patch=(8, 8, 8), batch=1, tumour_share=0.5)
    for patch, batch, share in [
        ((8, 8), 1, 0.5),
        ((8, 8, 0), 1, 0.5),
        ((8, 8, 8), 0, 0.5),
        ((8, 8, 8), 1, 2),
    ]:
        with pytest.raises(ValueError, match="expected patch of 3 positive sizes"):
            draw_batch([tumour_case], rng, patch=patch, batch=batch, tumour_share=share)
    unlabelled = cached_case(tmp_path, "unlabelled", positions((9, 9, 9)), None)
    with pytest.raises(ValueError, match="unlabelled: the case has no label"):
        draw_batch([unlabelled], rng, patch=(4, 4, 4), batch=1, tumour_share=0.5)


def marked_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Background everywhere but on an asymmetric set of voxels, where image and label tell the same."""
    labels = torch.zeros((size, 4, 5, 6), dtype=torch.uint8)
    labels[:, 0, 1, 2], labels[:, 1, 1, 4], labels[:, 3, 0, 5] = 1, 2, 3
    images = (labels[:, None] * 10.0).repeat(1, 4, 1, 1, 1)
    return images, labels


def test_image_and_label_are_flipped_together_over_all_axes() -> None:
    images, labels = marked_batch(64)
    new_images, new_labels = augment(images, labels, np.random.default_rng(0))
    assert new_images.shape == images.shape
    assert new_images.dtype == torch.float32
    assert new_labels.dtype == torch.uint8
    assert type(new_images) is torch.Tensor
    found = {label.numpy().tobytes() for label in new_labels}
    expected = {
        np.flip(labels[0].numpy(), [axis for axis in range(3) if bits >> axis & 1]).tobytes()
        for bits in range(8)
    }
    assert found == expected
    for channel in range(4):
        assert torch.equal(torch.round(new_images[:, channel] / 10).to(torch.uint8), new_labels)


def test_intensities_are_scaled_and_shifted_by_modality_and_background_stays_zero() -> None:
    images, labels = marked_batch(200)
    new_images, new_labels = augment(images, labels, np.random.default_rng(0))
    assert not new_images[(new_labels == 0)[:, None].expand_as(new_images)].any()
    values = [
        torch.stack([image[:, label == k][:, 0] for image, label in zip(new_images, new_labels)])
        for k in (1, 2)
    ]
    factor = (values[1] - values[0]) / 10  # [200, 4]
    offset = values[0] - 10 * factor
    for drawn, centre in ((factor, 1.0), (offset, 0.0)):
        assert (drawn - centre).abs().max() <= 0.1 + 1e-5
        assert abs(drawn.mean() - centre) < 0.01
        assert abs(drawn.std() - 0.2 / 12**0.5) < 0.005  # of the uniform distribution
        assert (drawn[:, 0] - drawn[:, 1]).abs().max() > 0.1  # modalities on their own
    assert torch.equal(images, marked_batch(200)[0])  # the input is left alone


def test_each_call_draws_anew() -> None:
    rng = np.random.default_rng(0)
    assert not torch.equal(augment(*marked_batch(4), rng)[0], augment(*marked_batch(4), rng)[0])

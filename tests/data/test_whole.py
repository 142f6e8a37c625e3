"""Whole cases at a fixed size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedbrats.data.cache import CachedCase
from fedbrats.data.whole import box_of, draw_whole, whole_image


class Case:
    """A case whose image is a ramp along X, the same in Y and Z."""

    def __init__(self, name: str = "c", shape: tuple[int, int, int] = (16, 8, 6), level: float = 0.0) -> None:
        self.name = name
        ramp = np.arange(shape[0], dtype=np.float16)[:, None, None] + np.zeros(shape, np.float16)
        self.image = np.stack([ramp + level + 100 * channel for channel in range(4)])
        self.label = np.zeros(shape, np.uint8)


def test_nothing_is_cut_off_and_channels_stay_apart() -> None:
    image = whole_image(Case(), [8, 8, 8])  # type: ignore[arg-type]
    assert image.shape == (4, 8, 8, 8)
    assert image.dtype == torch.float32
    # Halved, each voxel is the mean of two of the ramp.
    torch.testing.assert_close(image[0, :, 0, 0], torch.arange(8) * 2 + 0.5)
    torch.testing.assert_close(image[3], image[0] + 300)


@pytest.mark.parametrize(("plane", "ramp"), [("axial", True), ("coronal", True), ("sagittal", False)])
def test_two_sides_take_the_middle_slice(plane: str, ramp: bool) -> None:
    image = whole_image(Case(), [8, 4], plane=plane)  # type: ignore[arg-type]
    assert image.shape == (4, 8, 4)
    assert (image[0, :, 0].tolist() == [2 * i + 0.5 for i in range(8)]) == ramp
    assert ramp or (image[0] == 8).all()  # the middle of 16


def test_the_crop_is_the_box_of_the_tumour() -> None:
    case = Case()
    case.label[4, 1, 2], case.label[11, 6, 3] = 3, 1  # of the corners alone
    assert box_of(case.label) == (slice(4, 12), slice(1, 7), slice(2, 4))
    image = whole_image(case, [8, 8, 8], crop="tumour")  # type: ignore[arg-type]
    torch.testing.assert_close(image[0, :, 0, 0], torch.arange(8) + 4.0)
    middle = whole_image(case, [8, 8], plane="sagittal", crop="tumour")  # type: ignore[arg-type]
    assert (middle[0] == 8).all()  # 4 and half of 8
    nothing = Case()
    whole = whole_image(nothing, [8, 8, 8])  # type: ignore[arg-type]
    assert torch.equal(whole_image(nothing, [8, 8, 8], crop="tumour"), whole)  # type: ignore[arg-type]


def test_values_are_normalised_before_they_are_resized() -> None:
    doubled = whole_image(Case(), [8, 8, 8], lambda case, values: 2 * values)  # type: ignore[arg-type]
    torch.testing.assert_close(doubled, 2 * whole_image(Case(), [8, 8, 8]))  # type: ignore[arg-type]


def test_each_image_has_the_label_of_its_own_case() -> None:
    some = [Case("a", level=0.0), Case("b", level=50.0)]
    labels = {"a": 0, "b": 1}

    def drawn() -> tuple[torch.Tensor, torch.Tensor]:
        return draw_whole(some, labels, np.random.default_rng(0), sides=[4, 4, 4], batch=16)  # type: ignore[arg-type]

    images, found = drawn()
    assert images.shape == (16, 4, 4, 4, 4)
    assert found.dtype == torch.uint8
    assert 0 < int(found.sum()) < 16
    assert ((images[:, 0].amin((1, 2, 3)) >= 50) == found.bool()).all()
    assert all(torch.equal(one, other) for one, other in zip(drawn(), (images, found), strict=True))


def test_drawn_images_are_cropped_too() -> None:
    case = Case()
    case.label[:2] = 1
    images, _ = draw_whole(
        [case],  # type: ignore[list-item]
        {"c": 1},
        np.random.default_rng(0),
        sides=[4, 4, 4],
        batch=2,
        crop="tumour",
    )
    assert images[:, 0].max() <= 1  # X is 0 or 1 there


def test_no_cases_are_refused(tmp_path: Path) -> None:
    none: list[CachedCase] = []
    with pytest.raises(ValueError, match="no cases"):
        draw_whole(none, {}, np.random.default_rng(0), sides=[4, 4, 4], batch=1)

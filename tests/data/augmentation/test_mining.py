"""Positive mining: the printed probabilities, and an image times the mask of its tumour, worked out by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import mining as module
from fedbrats.data.augmentation.mining import resized

SIDES = (6, 7, 8)


def box_batch(size: int) -> tuple[Tensor, Tensor]:
    """A brain of 10 to 40 (by modality) everywhere, with a tumour in a box off the middle."""
    images = torch.tensor([10.0, 20.0, 30.0, 40.0]).reshape(1, 4, 1, 1, 1).repeat(size, 1, *SIDES)
    labels = torch.zeros((size, *SIDES), dtype=torch.uint8)
    labels[:, 1:3, 1:4, 4:7] = 2
    return images, labels


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Leave only one of the four changes, which then always happens."""
    for key in ("DROPOUT", "RESCALING", "FLIP", "MINING"):
        monkeypatch.setattr(module, key, float(key == name))


def test_the_printed_probabilities() -> None:
    images, labels = box_batch(1500)
    found, new_labels = augment(images, labels, np.random.default_rng(0), "mining")
    dropped = (found == 0).flatten(2).all(2)  # [1500, 4]
    assert set(dropped.sum(1).tolist()) == {0, 1}
    assert abs(float(dropped.any(1).float().mean()) - 0.2) < 0.04  # four standard deviations
    assert (dropped.float().mean(0) - 0.05).abs().max() < 0.025
    factors = found.flatten(2).amax(2) / images[:, :, 0, 0, 0]
    scaled = (factors - 1).abs().amax(1).where(~dropped.any(1), -1.0)
    whole = scaled[scaled >= 0]
    assert abs(float((whole > 0.05).float().mean()) - 0.5) < 0.06
    kept = factors[~dropped]
    for factor in (0.9, 1.0, 1.1):
        share = float(((kept - factor).abs() < 1e-5).float().mean())
        assert abs(share - (0.5 if factor == 1 else 0.25)) < 0.06
    for axis in (1, 2, 3):
        first = (new_labels != 0).float().argmax(dim=axis).flatten(1).amax(1)
        here = int((labels[0] != 0).float().argmax(dim=axis - 1).amax())
        assert abs(float((first != here).float().mean()) - 0.3) < 0.05
    share = float(((found != 0).float().mean((1, 2, 3, 4)) < 0.5).float().mean())
    assert abs(share - 0.1) < 0.03


def test_a_mined_patch_is_its_tumour_and_a_little_around_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "MINING")
    images, labels = box_batch(20)
    labels[0] = 0  # no tumour
    found, new_labels = augment(images, labels, np.random.default_rng(0), "mining")
    assert torch.equal(new_labels, labels)  # "the actual image label is left unchanged"
    assert torch.equal(found[0], images[0])
    for image, label in zip(found[1:], labels[1:], strict=True):
        seen = image != 0
        assert torch.equal(image[seen], images[0][seen])
        assert bool(seen[:, label != 0].any())
        assert seen.float().mean() < 0.5


@pytest.mark.parametrize(
    ("factor", "low", "high"), [(1.0, 6, 15), (1.15, 5, 16), (0.92, 6, 15), (0.8, 7, 14)]
)
def test_the_mask_grows_and_shrinks_about_its_middle(factor: float, low: int, high: int) -> None:
    # A box from 6 to 15 has its middle at 10.5 and reaches 4.5 from it; place x reads 10.5 + (x - 10.5) / factor.
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[6:16, 6:16] = True
    expected = torch.zeros_like(mask)
    expected[low : high + 1, low : high + 1] = True
    assert torch.equal(resized(mask, factor), expected)


def test_nothing_comes_in_from_outside_the_patch() -> None:
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask[:, 0] = True  # its middle is 1.5 and 0
    assert torch.equal(resized(mask, 0.5)[:, 0], torch.tensor([False, True, True, False]))
    assert not resized(mask, 0.5)[:, 1:].any()


def test_dropout_takes_one_modality_and_rescaling_has_two_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = box_batch(50)
    only(monkeypatch, "DROPOUT")
    found, _ = augment(images, labels, np.random.default_rng(0), "mining")
    assert ((found == 0).flatten(2).all(2).sum(1) == 1).all()
    only(monkeypatch, "RESCALING")
    found, _ = augment(images, labels, np.random.default_rng(0), "mining")
    assert set((found / images).mul(1000).round().unique().tolist()) == {900.0, 1100.0}
    assert (
        len({tuple(row) for row in (found / images)[:, :, 0, 0, 0].mul(10).round().tolist()}) > 2
    )  # by modality

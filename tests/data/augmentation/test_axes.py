"""Axes exchanged and mirrored, a modality of noise: every outcome as likely as documented."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import axes as module
from tests.data.augment_batches import marked_batch


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Leave only these of the two changes that have a probability."""
    for key in {"FLIP", "REPLACE"} - set(names):
        monkeypatch.setattr(module, key, 0.0)


def shares(found: Tensor, expected: list[Tensor]) -> list[float]:
    return [sum(bool(torch.equal(one, e)) for one in found) / len(found) for e in expected]


def test_axes_of_a_cube_come_in_all_six_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    images, labels = marked_batch(900, (5, 5, 5))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "axes")
    orders = [labels[0].permute(order) for order in itertools.permutations(range(3))]
    assert shares(new_labels, orders) == pytest.approx([1 / 6] * 6, abs=0.05)  # four standard deviations
    assert torch.equal(new_images, (new_labels[:, None] * 10.0).expand_as(new_images))


def test_only_axes_of_equal_sides_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    images, labels = marked_batch(300, (5, 4, 5))
    _, new_labels = augment(images, labels, np.random.default_rng(0), "axes")
    assert shares(new_labels, [labels[0], labels[0].permute(2, 1, 0)]) == pytest.approx([0.5] * 2, abs=0.12)
    images, labels = marked_batch(20, (4, 5, 6))
    assert torch.equal(augment(images, labels, np.random.default_rng(0), "axes")[1], labels)


def test_each_axis_is_mirrored_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "FLIP")
    images, labels = marked_batch(400, (4, 5))
    _, new_labels = augment(images, labels, np.random.default_rng(0), "axes")
    found = shares(new_labels, [labels[0].flip(axes) for axes in ([], [0], [1], [0, 1])])
    assert found == pytest.approx([0.25] * 4, abs=0.09)


def test_a_modality_becomes_noise_inside_the_brain(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "REPLACE")
    images = torch.full((800, 4, 4, 5, 6), 7.0)
    images[:, :, 0] = 0
    labels = torch.zeros((800, 4, 5, 6), dtype=torch.uint8)
    found, _ = augment(images, labels, np.random.default_rng(0), "axes")
    changed = (found != images).flatten(2).any(2)  # [800, 4]
    assert set(changed.sum(1).tolist()) == {0, 1}
    assert abs(float(changed.any(1).float().mean()) - 0.1) < 0.045
    assert changed.any(0).all()
    assert not found[:, :, 0].any()
    noise = found[changed][:, 1:]
    assert abs(float(noise.mean())) < 0.06
    assert abs(float(noise.std()) - 1) < 0.05

"""Flips, quarter turns and gamma of the CMM-Net, with the printed probabilities."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import turns as module
from tests.data.augment_batches import marked_batch


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Leave only one of the three changes, with its printed probability."""
    for key in {"FLIP", "TURN", "CONTRAST"} - {name}:
        monkeypatch.setattr(module, key, 0.0)


def shares(found: Tensor, expected: list[Tensor]) -> list[float]:
    return [sum(bool(torch.equal(one, e)) for one in found) / len(found) for e in expected]


def test_each_axis_is_mirrored_with_probability_two_fifths(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "FLIP")
    images, labels = marked_batch(600, (4, 5))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "turns")
    found = shares(new_labels, [labels[0].flip(axes) for axes in ([], [0], [1], [0, 1])])
    assert found == pytest.approx([0.36, 0.24, 0.24, 0.16], abs=0.08)  # four standard deviations
    assert torch.equal(new_images, (new_labels[:, None] * 10.0).expand_as(new_images))


def test_quarter_turns_about_z_come_in_three_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "TURN")
    images, labels = marked_batch(900, (5, 5, 4))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "turns")
    found = shares(new_labels, [torch.rot90(labels[0], k, (0, 1)) for k in range(4)])
    assert found == pytest.approx([0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3], abs=0.065)
    assert torch.equal(new_images, (new_labels[:, None] * 10.0).expand_as(new_images))


def test_an_oblong_patch_is_turned_by_half(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "TURN")
    images, labels = marked_batch(400)
    _, new_labels = augment(images, labels, np.random.default_rng(0), "turns")
    assert shares(new_labels, [labels[0], labels[0].flip([0, 1])]) == pytest.approx([0.6, 0.4], abs=0.1)


def test_contrast_is_a_gamma_of_each_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "CONTRAST")
    images, labels = marked_batch(400)  # values 0 (background), 10, 20 and 30 in every modality
    found, new_labels = augment(images, labels, np.random.default_rng(0), "turns")
    assert torch.equal(new_labels, labels)
    assert not found[(labels == 0)[:, None].expand_as(found)].any()
    middle = found[(labels == 2)[:, None].expand_as(found)].reshape(400, 4)  # 30 (20 / 30)^gamma
    gamma = torch.log(middle / 30) / torch.log(torch.tensor(2 / 3))
    changed = (gamma - 1).abs().amax(1) > 1e-3
    assert abs(float(changed.float().mean()) - 0.5) < 0.1
    drawn = gamma[changed]
    assert 0.7 - 1e-3 < drawn.min() < 0.72
    assert 1.48 < drawn.max() < 1.5 + 1e-3
    assert (drawn[:, 0] - drawn[:, 1]).abs().max() > 0.3

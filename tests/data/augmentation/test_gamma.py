"""Rotations of DeepSeg: angles, axes and gamma within their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import gamma as module
from tests.data.augment_batches import marked_batch


@pytest.mark.parametrize("sides", [(31, 31), (31, 31, 31)])
def test_half_of_the_samples_are_turned_by_up_to_30_degrees_about_one_axis(
    sides: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar along X through the middle: where its end goes tells the angle and the axis; about X nothing moves."""
    monkeypatch.setattr(module, "FLIP", 0.0)
    monkeypatch.setattr(module, "POWER", 0.0)
    labels = torch.zeros((150, *sides), dtype=torch.uint8)
    bar = (slice(None), slice(2, 29), *[slice(14, 17)] * (len(sides) - 1))
    labels[bar] = 2
    _, found = augment(torch.ones((150, 4, *sides)), labels, np.random.default_rng(0), "gamma")
    moved = [tuple((torch.nonzero(label)[-40:].float().mean(0) - 15).tolist()) for label in found]
    angles = [[math.degrees(math.atan2(side, end[0])) for side in end[1:]] for end in moved]
    turned = [max(abs(a) for a in angle) for angle in angles]
    assert 24 < max(turned) < 34
    share = np.mean([angle > 1 for angle in turned])
    assert share == pytest.approx(0.5 if len(sides) == 2 else 1 / 3, abs=0.14)  # 2 axes of 3 move the bar
    assert all(sum(abs(a) > 2 for a in angle) <= 1 for angle in angles)  # about one axis at a time
    assert len({np.sign(round(a[0], 1)) for a in angles if abs(a[0]) > 2}) == 1  # "between 0 and 30"


def test_gamma_of_half_of_the_samples_and_mirrors_of_each_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROTATE", 0.0)
    images, labels = marked_batch(400)
    found, new_labels = augment(images, labels, np.random.default_rng(0), "gamma")
    kept = [bool(torch.equal(one, labels[0])) for one in new_labels]
    assert np.mean(kept) == pytest.approx(1 / 8, abs=0.07)
    assert not found[(new_labels == 0)[:, None].expand_as(found)].any()
    middle = found[(new_labels == 2)[:, None].expand_as(found)].reshape(400, 4)  # 30 (20 / 30)^gamma
    gamma = torch.log(middle / 30) / torch.log(torch.tensor(2 / 3))
    changed = (gamma - 1).abs().amax(1) > 1e-3
    assert float(changed.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert 0.7 - 1e-3 < gamma[changed].min() < 0.73
    assert 1.47 < gamma[changed].max() < 1.5 + 1e-3

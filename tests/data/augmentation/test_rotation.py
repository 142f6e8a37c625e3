"""Rotation: angles within their limits, in the axial plane, flips of X and Y alone, and a little noise."""

import math

import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import rotation as module
from tests.data.augment_batches import marked_batch


@pytest.mark.parametrize("sides", [(40, 30), (40, 30, 6)])
def test_a_bar_turns_by_up_to_thirty_degrees_and_keeps_its_length(sides: tuple[int, ...]) -> None:
    """A bar of 20 x 4 pixels in the middle: its direction tells the angle."""
    labels = torch.zeros((60, *sides), dtype=torch.uint8)
    labels[:, 10:30, 13:17] = 2
    images = torch.ones((60, 4, *sides))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "rotation")
    angles = []
    for label in new_labels:
        found = torch.nonzero(label if label.ndim == 2 else label[..., 3]).double()
        spread, axes = torch.linalg.eigh((found - found.mean(0)).T.cov())
        angles.append(math.degrees(math.atan(float(axes[1, 1]) / float(axes[0, 1]))))
        assert 19 < float(spread[1]) ** 0.5 * 12**0.5 < 21
    assert 25 < max(angles) < 31
    assert -31 < min(angles) < -25
    noise = (new_images - 1)[(new_labels != 0)[:, None].expand_as(new_images)]
    assert abs(float(noise.std()) - 0.01) < 0.001
    if len(sides) == 3:  # all slices alike
        assert torch.equal(new_labels, new_labels[..., :1].expand_as(new_labels))


def test_x_and_y_are_mirrored_and_z_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANGLE", 0)
    images, labels = marked_batch(400)
    _, new_labels = augment(images, labels, np.random.default_rng(0), "rotation")
    found = [
        float((new_labels == labels[0].flip(axes)).all((1, 2, 3)).float().mean())
        for axes in ([], [0], [1], [0, 1])
    ]
    assert found == pytest.approx([0.25] * 4, abs=0.09)  # four standard deviations
    assert sum(found) == pytest.approx(1)

"""Rotations: angles within their limits, noise of both kinds with the printed mean and deviation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import rotation_noise as module


@pytest.mark.parametrize("sides", [(40, 30), (40, 30, 6)])
def test_angles_are_within_their_limits_and_no_length_changes(sides: tuple[int, ...]) -> None:
    labels = torch.zeros((60, *sides), dtype=torch.uint8)
    labels[:, 10:30, 13:17] = 2
    images = torch.ones((60, 4, *sides))
    _, new_labels = augment(images, labels, np.random.default_rng(0), "rotation_noise")
    angles, lengths = [], []
    for label in new_labels:
        found = torch.nonzero(label if label.ndim == 2 else label[..., 3]).double()
        spread, axes = torch.linalg.eigh((found - found.mean(0)).T.cov())
        angle = math.degrees(math.atan2(float(axes[1, 1]), float(axes[0, 1]))) % 180
        angles.append(min(angle, 180 - angle))
        lengths.append(float(spread[1]) ** 0.5 * 12**0.5)
    assert 10 < max(angles) < 17
    assert min(angles) < 3
    assert 19 < min(lengths) <= max(lengths) < 21


def test_half_of_the_samples_get_noise_gaussian_or_poisson(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Poisson variable with lambda 1, (k - 1) 0.2 is -0.2 at least and a whole number of fifths."""
    monkeypatch.setattr(module, "ANGLE", 0)
    images, labels = torch.full((400, 4, 16, 16), 5.0), torch.zeros(400, 16, 16, dtype=torch.uint8)
    new_images, _ = augment(images, labels, np.random.default_rng(0), "rotation_noise")
    noise = (new_images - 5)[:, :, 1:-1, 1:-1]  # MONAI's affine may read outside at the edge
    noisy = noise.abs().amax((1, 2, 3)) > 1e-3
    fifths = noise[noisy] / 0.2
    poisson = (fifths - fifths.round()).abs().amax((1, 2, 3)) < 1e-2
    assert abs(noisy.float().mean() - 0.5) < 0.1
    assert abs(poisson.float().mean() - 0.5) < 0.15
    for kind in (noise[noisy][poisson], noise[noisy][~poisson]):
        assert abs(kind.mean()) < 0.005
        assert abs(kind.std() - 0.2) < 0.005
    assert noise[noisy][poisson].min() > -0.21
    assert noise[noisy][~poisson].min() < -0.6

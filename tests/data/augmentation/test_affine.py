"""Affine: the deviations of Table 1, read off what has become of a block and of its intensities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import affine as module


def middles_and_lengths(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the voxels of each label [*S]: their mean, and the sides of a block with their deviations."""
    found = [torch.nonzero(label).double() for label in labels]
    middles = torch.stack([f.mean(0) for f in found])
    lengths = torch.stack([(12 * f.var(0, correction=0) + 1).sqrt() for f in found])
    return middles, lengths


def test_shifts_and_scales_have_their_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANGLE", 0.0)
    labels = torch.zeros(80, 32, 32, 32, dtype=torch.uint8)
    labels[:, 8:24, 8:24, 8:24] = 1
    images = torch.ones(80, 4, 32, 32, 32)
    _, new_labels = augment(images, labels, np.random.default_rng(0), "affine")
    middles, lengths = middles_and_lengths(new_labels)
    assert (middles.mean(0) - 15.5).abs().max() < 0.8
    assert ((middles.std(0) - 2.0).abs() < 0.6).all()
    assert (lengths.mean(0) - 16).abs().max() < 0.4
    assert ((lengths.std(0) - 16 * 0.03).abs() < 0.25).all()  # and what rounding to voxels adds


@pytest.mark.parametrize("axes", [2, 3])
def test_rotations_have_their_deviation(monkeypatch: pytest.MonkeyPatch, axes: int) -> None:
    monkeypatch.setattr(module, "SHIFT", 0.0)
    monkeypatch.setattr(module, "SCALE", 0.0)
    sides = (40, 24, 24)[:axes]
    labels = torch.zeros(50, *sides, dtype=torch.uint8)
    labels[(slice(None), slice(6, 34), *[slice(10, 14)] * (axes - 1))] = 1  # a bar along the first axis
    _, new_labels = augment(torch.ones(50, 4, *sides), labels, np.random.default_rng(0), "affine")
    slopes = []
    for label in new_labels:
        found = torch.nonzero(label).double()
        along = torch.linalg.eigh((found - found.mean(0)).T.cov())[1][:, -1]
        slopes.append(torch.rad2deg(torch.atan(along[1:] / along[0])))
    angles = torch.stack(slopes)
    assert (angles.mean(0).abs() < 5).all()
    assert ((angles.std(0) - 10).abs() < 3).all()


def test_intensities_have_their_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHIFT", "ANGLE", "SCALE"):
        monkeypatch.setattr(module, name, 0.0)
    images = torch.full((300, 4, 18, 18), 5.0)
    images[..., :9] = 10.0
    labels = torch.zeros(300, 18, 18, dtype=torch.uint8)
    found, _ = augment(images, labels, np.random.default_rng(0), "affine")
    high, low = found[..., 1:17, 2:8].flatten(2), found[..., 1:17, 10:16].flatten(2)
    factor = (high.mean(2) - low.mean(2)) / 5
    offset = low.mean(2) - 5 * factor
    assert abs(low.std(2).mean() - 0.1) < 0.01
    assert abs(factor.mean() - 1) < 0.02
    assert abs(factor.std() - 0.1) < 0.015
    assert abs(offset.mean()) < 0.03
    assert abs(offset.std() - 0.1) < 0.03
    assert (factor[:, 0] - factor[:, 1]).abs().max() > 0.1  # modalities on their own

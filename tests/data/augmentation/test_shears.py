"""Affine: scale, shear and brightness within their limits."""

import math

import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment


@pytest.mark.parametrize("sides", [(48, 48), (24, 24, 24)])
def test_volume_changes_with_the_scale_and_brightness_by_modality(sides: tuple[int, ...]) -> None:
    """Rotation keeps the volume, the scale multiplies it by 0.9 to 1.1 per axis, and shear changes it by little."""
    n, axes = 80, len(sides)
    labels = torch.zeros((n, *sides), dtype=torch.uint8)
    quarter = [slice(side // 4, side - side // 4) for side in sides]
    labels[(slice(None), *quarter)] = 1
    images = torch.ones((n, 4, *sides))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "shears")
    volumes = new_labels.flatten(1).sum(1).double() / labels[0].sum()
    scales = volumes ** (1 / axes)
    assert 0.88 < float(scales.min()) < 0.94
    assert 1.06 < float(scales.max()) < 1.14
    lights = torch.stack(
        [image[:, label == 1].median(1).values for image, label in zip(new_images, new_labels)]
    )
    assert 0.9 <= float(lights.min()) < 0.91
    assert 1.09 < float(lights.max()) <= 1.1
    assert lights.std(1).min() > 1e-3  # each modality has its own


def test_a_square_is_turned_and_sheared() -> None:
    """Two bars that cross are turned alike, and sheared by two draws, so that they do not stay at right angles."""
    labels = torch.zeros((60, 64, 64), dtype=torch.uint8)
    labels[:, 16:48, 30:34] = 1
    labels[:, 30:34, 16:48] |= 2
    _, found = augment(torch.ones((60, 4, 64, 64)), labels, np.random.default_rng(1), "shears")
    turned, apart = [], []
    for label in found:
        ways = []
        for bar in (1, 2):
            place = torch.nonzero(label == bar).double()
            _, directions = torch.linalg.eigh((place - place.mean(0)).T.cov())
            ways.append(math.degrees(math.atan2(float(directions[1, 1]), float(directions[0, 1]))) % 180)
        turned.append(min(ways[0], 180 - ways[0], abs(ways[0] - 90)))
        difference = abs(ways[0] - ways[1]) % 180
        apart.append(abs(90 - difference))
    assert 8 < max(turned) < 22  # 15 degrees and a shear of 0.1, which is 5.7
    assert 6 < max(apart) < 13  # two shears

"""Uniform noise: its range, its spread, and where it is."""

import numpy as np
import torch

from fedbrats.data.augment import augment
from tests.data.augment_batches import marked_batch


def test_noise_is_uniform_on_every_voxel_of_the_brain() -> None:
    images, labels = marked_batch(2000)
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "noise")
    assert torch.equal(new_labels, labels)
    drawn = (new_images - images)[images != 0]
    assert drawn.abs().max() <= 0.1 + 1e-5
    assert abs(drawn.mean()) < 0.002
    assert abs(drawn.std() - 0.2 / 12**0.5) < 0.001  # of the uniform distribution
    assert len(drawn.unique()) > 0.9 * len(drawn)

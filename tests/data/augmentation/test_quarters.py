"""Quarters: which turns and flips there are, and the noise."""

import numpy as np
import torch

from fedbrats.data.augment import augment
from tests.data.augment_batches import marked_batch


def test_x_and_y_are_turned_and_mirrored_and_nothing_else() -> None:
    images, labels = marked_batch(400, (6, 6, 5))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "quarters")
    eight = [torch.rot90(one, k, (0, 1)) for one in (labels[0], labels[0].flip(0)) for k in range(4)]
    times = [sum(bool(torch.equal(label, one)) for label in new_labels) for one in eight]
    assert sum(times) == 400
    assert min(times) > 25  # of 50; four standard deviations
    assert ((new_images / 10).round() == new_labels[:, None]).all()


def test_noise_has_the_printed_deviation() -> None:
    images, labels = marked_batch(2000, (6, 5, 4))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "quarters")
    drawn = (new_images - 10.0 * new_labels[:, None])[new_labels[:, None].expand_as(new_images) != 0]
    assert abs(float(drawn.std()) - 5 / 31.875) < 0.003  # 5 grey values, where the deviation is 255 / 8
    assert abs(float(drawn.mean())) < 0.005

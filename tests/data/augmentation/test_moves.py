"""Moves: angle, enlargement and place within their limits."""

import math

import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment


def bars(sides: tuple[int, ...], recipe: str) -> tuple[list[float], list[float]]:
    """How far a bar of 20 x 4 pixels, away from the edges, is turned in each of 60 samples, and how long it becomes."""
    labels = torch.zeros((60, *sides), dtype=torch.uint8)
    labels[:, 10:30, 13:17] = 2
    _, new_labels = augment(torch.ones((60, 4, *sides)), labels, np.random.default_rng(0), recipe)
    angles, lengths = [], []
    for label in new_labels:
        found = torch.nonzero(label if label.ndim == 2 else label[..., 3]).double()
        spread, axes = torch.linalg.eigh((found - found.mean(0)).T.cov())
        angle = math.degrees(math.atan2(float(axes[1, 1]), float(axes[0, 1]))) % 180
        angles.append(min(angle, 180 - angle))
        lengths.append(float(spread[1]) ** 0.5 * 12**0.5)
    return angles, lengths


def test_rotations_turn_by_a_fifth_of_the_circle_and_keep_the_size() -> None:
    angles, lengths = bars((40, 30), "rotations")
    assert 60 < max(angles) < 73.5
    assert 19 < min(lengths) < max(lengths) < 22
    assert abs(sum(lengths) / 60 - 20) < 0.5


def test_tilts_turn_by_up_to_seven_degrees_and_keep_the_size() -> None:
    angles, lengths = bars((40, 30), "tilts")
    assert 5 < max(angles) < 8.5
    assert abs(sum(lengths) / 60 - 20) < 0.5


def test_crops_enlarge_and_do_not_turn() -> None:
    angles, lengths = bars((40, 30, 6), "crops")
    assert max(angles) < 1.5
    assert 23.5 < max(lengths) < 26  # 20 / 0.8


@pytest.mark.parametrize("sides", [(40, 30), (40, 30, 6)])
def test_moves_turn_and_enlarge_within_their_limits(sides: tuple[int, ...]) -> None:
    """A bar of 20 x 4 pixels, away from the edges: its direction tells the angle, its extent the enlargement."""
    labels = torch.zeros((60, *sides), dtype=torch.uint8)
    labels[:, 10:30, 13:17] = 2
    images = torch.ones((60, 4, *sides))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "moves")
    angles, lengths, middles = [], [], []
    for label in new_labels:
        found = torch.nonzero(label if label.ndim == 2 else label[..., 3]).double()
        spread, axes = torch.linalg.eigh((found - found.mean(0)).T.cov())
        angles.append(math.degrees(math.atan2(float(axes[1, 1]), float(axes[0, 1]))) % 180)
        lengths.append(float(spread[1]) ** 0.5 * 12**0.5)
        middles.append(found.mean(0))
    turned = [min(angle, 180 - angle) for angle in angles]
    assert 10 < max(turned) < 17
    assert min(turned) < 3
    assert 19 < min(lengths) < 21
    assert 23.5 < max(lengths) < 26  # 20 / 0.8
    assert torch.stack(middles).std(0).min() > 1  # the crop lies anywhere
    assert ((new_images - 1).abs().amax(1)[new_labels != 0] < 1e-3).all()

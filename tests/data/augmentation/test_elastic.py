"""Elastic deformation: printed numbers, image and label moved alike, nothing invented outside the brain."""

import numpy as np
import pytest
import torch

from fedbrats.data.augmentation import elastic as module
from fedbrats.data.augmentation.elastic import elastic
from tests.data.augment_batches import brain_batch


def state(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


def ramps(sides: tuple[int, ...]) -> torch.Tensor:
    """The place of each voxel along each axis, 1 based, [axes, *S]; reading it elsewhere tells from where."""
    return torch.stack(torch.meshgrid(*[torch.arange(side) + 1.0 for side in sides], indexing="ij"))


@pytest.mark.parametrize("sides", [(20, 18, 16), (44, 40)])
def test_displacements_have_the_printed_spread_at_the_points_of_the_grid(sides: tuple[int, ...]) -> None:
    # Far from the edge, so at the middle point of the grid; its draw is read off a ramp along each axis.
    odd = tuple(side + 1 for side in sides)
    images = ramps(odd)[:2][None].repeat(200, 2, *[1] * len(odd))
    labels = torch.ones((200, *odd), dtype=torch.uint8)
    moved, _ = elastic(images, labels, state())
    middle = tuple(side // 2 for side in odd)
    shifts = (
        torch.stack([image[(slice(0, 2), *middle)] for image in moved])
        - images[0, :2][(slice(None), *middle)]
    )
    deformed = (shifts != 0).any(1)
    assert abs(deformed.float().mean() - 0.75) < 4 * (0.75 * 0.25 / 200) ** 0.5
    drawn = shifts[deformed]
    assert abs(drawn.mean()) < 0.5
    assert abs(drawn.std() - 2.0) < 0.4
    assert abs(np.corrcoef(drawn.T.numpy())[0, 1]) < 0.3  # each axis has its own


def test_every_voxel_moves_as_the_points_around_it_say() -> None:
    places = module._places(torch.zeros(4, 5, 9, 7), state(3))
    drawn = torch.from_numpy(state(3).normal(0, 2.0, (1, 3, 3, 3, 3)))[0]
    still = ramps((5, 9, 7)) - 1
    for point, voxel in (((0, 0, 0), (0, 0, 0)), ((1, 1, 1), (2, 4, 3)), ((2, 0, 1), (4, 0, 3))):
        read = (places[0][voxel].flip(0) + 1) / 2 * torch.tensor([4.0, 8.0, 6.0])
        expected = still[(slice(None), *voxel)] + drawn[(slice(None), *point)].flip(0).float()
        torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)
    between = (places[0][1, 0, 0] - places[0][0, 0, 0] + places[0][1, 0, 0] - places[0][2, 0, 0]).abs()
    assert between.max() < 1e-5  # a voxel halfway moves halfway


@pytest.mark.parametrize("sides", [(20, 18, 16), (30, 26)])
def test_image_and_label_move_together_and_background_stays_background(sides: tuple[int, ...]) -> None:
    inner = tuple(slice(5, side - 5) for side in sides)
    labels = torch.zeros((20, *sides), dtype=torch.uint8)
    labels[(slice(None), *inner)] = 3
    images = (labels[:, None] * 1.0).repeat(1, 4, *[1] * len(sides))
    moved, new = elastic(images, labels, state())
    assert set(new.unique().tolist()) == {0, 3}
    assert not torch.equal(new, labels)
    assert not moved[(new == 0)[:, None].expand_as(moved)].any()  # the image's zeros are those of the label
    inside = moved[(new == 3)[:, None].expand_as(moved)]
    assert (
        inside.min() > 3 * 0.5 ** len(sides) - 1e-5
    )  # at the edge, read half from outside along each axis at most
    assert inside.median() == 3


def test_a_sample_that_is_left_alone_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBABILITY", 0.0)
    images, labels = brain_batch(2, (8, 8, 8))
    moved, new = elastic(images, labels, state())
    assert torch.equal(moved, images)
    assert torch.equal(new, labels)
    assert moved.data_ptr() != images.data_ptr()


def test_without_displacement_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISPLACEMENT", 0.0)
    images, labels = brain_batch(2, (9, 8, 7))
    moved, new = elastic(images, labels, state())
    torch.testing.assert_close(moved, images, atol=1e-5, rtol=1e-5)
    assert torch.equal(new, labels)

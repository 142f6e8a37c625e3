"""Where the crop goes, and that what is outside of it is background."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.inference.locate import NO_TUMOUR, box_around, refine
from fedbrats.inference.predict import Prediction
from fedbrats.tasks.segmentation import labels_from_probabilities, region_probabilities

SHAPE = (20, 16, 12)


def mask_of(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box] = True
    return mask


def test_crop_is_centred_on_the_bounding_box() -> None:
    mask = mask_of((slice(6, 10), slice(4, 9), slice(5, 7)))
    assert box_around(mask, [8, 8, 6]) == [[4, 12], [2, 10], [3, 9]]
    mask[6, 4, 5] = False  # of the box, not of the mass
    mask[7:10, 5:8] = False
    assert box_around(mask, [8, 8, 6]) == [[4, 12], [2, 10], [3, 9]]


def test_crop_moves_into_the_volume() -> None:
    assert box_around(mask_of((slice(0, 2), slice(14, 16), slice(11, 12))), [8, 8, 8]) == [
        [0, 8],
        [8, 16],
        [4, 12],
    ]


def test_crop_is_no_larger_than_the_volume() -> None:
    assert box_around(mask_of((slice(3, 4), slice(3, 4), slice(3, 4))), [128, 8, 128]) == [
        [0, 20],
        [0, 8],
        [0, 12],
    ]


def test_all_foci_count_while_they_fit_and_the_largest_when_not() -> None:
    large, stray = (slice(1, 5), slice(1, 5), slice(1, 5)), (slice(18, 19), slice(2, 3), slice(2, 3))
    assert box_around(mask_of(large, stray), [18, 8, 8])[0] == [1, 19]
    assert box_around(mask_of(large, stray), [8, 8, 8])[0] == [0, 8]


def test_no_mask_no_box() -> None:
    with pytest.raises(ValueError, match="at least one voxel"):
        box_around(np.zeros(SHAPE, bool), [8, 8, 8])


class Seen:
    """A network that answers `probability` and remembers what it was given."""

    def __init__(self, probability: list[float], spread: float | None = None) -> None:
        self.probability, self.spread = probability, spread

    def __call__(self, part: np.ndarray) -> Prediction:
        self.part = part
        p = torch.tensor(self.probability).view(-1, 1, 1, 1).repeat(1, *part.shape[1:])
        spread = None if self.spread is None else torch.full_like(region_probabilities(p), self.spread)
        return Prediction(p, spread, 4, ("its own note",), region_probabilities(p) / 2)


@pytest.mark.parametrize(
    ("probability", "background", "label"),
    [([0.8], [0.0], 2), ([0.9, 0.8, 0.2], [0.0] * 3, 1), ([0.1, 0.2, 0.1, 0.6], [1.0, 0, 0, 0], 3)],
    ids=["whole tumour", "regions", "classes"],
)
def test_outside_the_crop_is_background(
    probability: list[float], background: list[float], label: int
) -> None:
    image = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)
    network = Seen(probability, spread=0.1)
    found = refine(mask_of((slice(6, 10), slice(4, 8), slice(5, 7))), image, [8, 8, 6], network)
    inside = np.zeros(SHAPE, bool)
    inside[4:12, 2:10, 3:9] = True
    np.testing.assert_array_equal(network.part, image[:, 4:12, 2:10, 3:9])
    assert found.probabilities.shape == (len(probability), *SHAPE)
    assert (labels_from_probabilities(found.probabilities) == np.where(inside, label, 0)).all()
    np.testing.assert_allclose(found.probabilities[:, inside].numpy()[:, 0], probability)
    np.testing.assert_allclose(found.probabilities[:, ~inside].numpy()[:, 0], background)
    assert found.spread is not None
    np.testing.assert_allclose(found.spread.numpy(), np.broadcast_to(0.1 * inside, found.spread.shape))
    np.testing.assert_allclose(
        found.by_region.numpy(), region_probabilities(found.probabilities).numpy() / 2, atol=1e-6
    )
    assert (found.passes, found.notes) == (4, ("its own note",))


def test_without_a_tumour_everything_is_refined() -> None:
    network = Seen([0.8])
    found = refine(np.zeros(SHAPE, bool), np.zeros((4, *SHAPE), np.float32), [8, 8, 8], network)
    assert network.part.shape == (4, *SHAPE)
    assert (found.probabilities == torch.tensor(0.8)).all()
    assert found.notes == ("its own note", NO_TUMOUR)


def test_a_tumour_larger_than_the_crop_is_said() -> None:
    mask = mask_of((slice(0, 20), slice(0, 1), slice(0, 1)))
    found = refine(mask, np.zeros((4, *SHAPE), np.float32), [8, 8, 8], Seen([0.8]))
    assert found.notes[1] == "the located tumour is larger than the crop 8x8x8: 12 of its voxels lie outside"

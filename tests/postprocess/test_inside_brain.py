"""No prediction outside the brain, where it is known, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.data.brain import background_share, brain_mask, is_stripped
from fedbrats.postprocess.fitting import Predicted
from fedbrats.postprocess.inside_brain import InsideBrain
from fedbrats.postprocess.largest_component import LargestComponent
from fedbrats.postprocess.steps import apply_steps
from tests.postprocess.toy_cases import CUBIC, sure

IMAGE = np.zeros((4, 6, 6, 6), np.float16)
IMAGE[2, 1:5, 1:5, 1:5] = 1.5  # of one modality
IMAGE[:, 2, 2, 2] = 0  # a cavity, and inside all the same


def test_the_brain_is_what_is_not_0_in_some_modality_without_holes() -> None:
    expected = np.zeros((6, 6, 6), bool)
    expected[1:5, 1:5, 1:5] = True
    np.testing.assert_array_equal(brain_mask(IMAGE), expected)


def test_an_image_with_little_background_is_not_skull_stripped() -> None:
    assert background_share(list(IMAGE)) == pytest.approx(1 - 63 / 216)
    noise = np.ones((4, 6, 6, 6), np.float16)
    noise[:, :2, 0, 0], noise[1:, 0] = 0, 0  # 0 in one modality is no background
    assert background_share(list(noise)) == pytest.approx(2 / 216)
    assert [is_stripped(share) for share in (1 - 63 / 216, 0.1, 2 / 216)] == [True, True, False]


def test_what_is_predicted_outside_becomes_background() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2, 2], labels[0, :4, 0], labels[5, 5, 5] = 3, 2, 1
    raw, kept, largest = apply_steps(
        [InsideBrain(), LargestComponent("WT")], Predicted(labels, sure(labels), CUBIC, brain_mask(IMAGE))
    )
    assert np.count_nonzero(raw) == 7
    assert np.argwhere(kept).tolist() == [[2, 2, 2], [3, 2, 2]]
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(largest, kept)


def test_without_a_known_brain_nothing_changes() -> None:
    labels = np.full((2, 2, 2), 2, np.uint8)
    _, kept = apply_steps([InsideBrain()], Predicted(labels, sure(labels), CUBIC, None))
    np.testing.assert_array_equal(kept, labels)
    assert kept is not labels


def test_it_has_nothing_to_fit() -> None:
    step = InsideBrain()
    assert step.fitted
    assert step.fit([]) == {}
    assert step.with_parameters({}) == step
    with pytest.raises(ValueError, match="ml is not fitted here"):
        step.with_parameters({"ml": 1.0})

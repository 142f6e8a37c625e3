"""The Dice over thresholds against the printed definition and figures worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fedbrats.data.family_table import ANNOTATORS
from fedbrats.data.regions import to_canonical
from fedbrats.metrics.annotators import qubiq, threshold_dice
from fedbrats.metrics.score import score_case
from fedbrats.metrics.table import METRICS, Masks, facts_of, worst


def counts(seed: int, annotators: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, annotators + 1, (4, 5, 6)).astype(np.uint8)


def as_printed(prediction: np.ndarray, reference: np.ndarray, annotators: int) -> float:
    """Section 3.4 word by word, in exact fractions."""
    scores = []
    for step in range(10):
        guess, true = (
            np.array([Fraction(int(c), annotators) >= Fraction(step, 10) for c in volume.ravel()])
            for volume in (prediction, reference)
        )
        tp, fp, fn = (guess & true).sum(), (guess & ~true).sum(), (~guess & true).sum()
        scores.append(2 * tp / (2 * tp + fp + fn))
    return float(np.mean(scores))


@pytest.mark.parametrize(
    "annotators", [2, 3, 5, 7]
)  # of 5, a share of 3/5 is at the threshold 0.6 and inside
def test_it_is_the_printed_mean(annotators: int) -> None:
    guess, true = counts(0, annotators), counts(1, annotators)
    assert threshold_dice(guess, true, annotators) == pytest.approx(as_printed(guess, true, annotators))


def test_by_hand() -> None:
    """At 0 all 4 voxels are inside (1); at 0.1 to 0.3 the masks are 3 and 2 voxels (4/5), at 0.4 to 0.6 1 and 2 (2/3),
    at 0.7 to 0.9 1 and none (0)."""
    guess, true = np.array([0, 1, 1, 3], np.uint8), np.array([0, 0, 2, 2], np.uint8)
    assert threshold_dice(guess, true, 3) == pytest.approx((1 + 3 * 4 / 5 + 3 * 2 / 3 + 0) / 10)


def test_an_empty_mask_scores_a_tenth_as_in_the_paper() -> None:
    """ "In the cases with the value of SDC equal to 0.1, the model ... returned an empty mask" (section 4)."""
    true = counts(1, 3)
    assert threshold_dice(np.zeros_like(true), true, 3) == pytest.approx(0.1)
    assert threshold_dice(true, true, 3) == 1.0
    assert worst(facts_of([qubiq()], "brats2023")) == {"swept_dice": 0.1}


def test_of_a_case_it_is_a_tenth_and_nine_tenths_of_the_mean_dice_in_every_region() -> None:
    guess, true = (to_canonical(counts(seed, 3), ANNOTATORS) for seed in (0, 1))
    found = score_case(guess, true, (1, 1, 1), "brats2023", [METRICS[0], qubiq()])
    expected = 0.1 + 0.9 * np.mean([scores["dice"] for scores in found.values()])
    assert [scores["swept_dice"] for scores in found.values()] == pytest.approx([expected] * 3)


def test_what_it_cannot_score_is_refused() -> None:
    true = counts(1, 3)
    with pytest.raises(ValueError, match="larger than the number of annotators, 2"):
        threshold_dice(true, true, 2)
    with pytest.raises(ValueError, match="one shape"):
        threshold_dice(true[1:], true, 3)
    with pytest.raises(ValueError, match="whole case"):
        qubiq().of(Masks(true > 0, true > 0, (1, 1, 1), "brats2023"))

"""The Dice of counts of annotators over thresholds, by which QUBIQ scores uncertainty.

"Modeling multi-annotator uncertainty as multi-class segmentation problem" (BrainLes 2021), section 3.4: prediction and
truth are counts divided by the number of annotators; both are binarised at 0.1 i, i = 0 to 9, and the ten Dice scores
are averaged.

Convention: a voxel is inside where its share is at or above the threshold. Print does not say "at", but an empty mask
scores 0.1 there (section 4), which is the threshold 0 at which every voxel is inside. Two empty masks score 1, as
everywhere here, of which the paper says nothing. With three annotators each region stands for three thresholds, so the
score of a case is 0.1 + 0.9 times the mean Dice of its regions.
"""

from __future__ import annotations

import numpy as np

from fedbrats.data.annotators import COUNT
from fedbrats.data.family_table import ANNOTATORS
from fedbrats.data.regions import to_source
from fedbrats.metrics.overlap import dice
from fedbrats.metrics.table import Masks, Metric

STEPS = 10  # thresholds
EMPTY = 1 / STEPS  # score of an empty prediction; none is worse


def threshold_dice(prediction: np.ndarray, reference: np.ndarray, annotators: int) -> float:
    """Mean Dice over the thresholds 0.0, 0.1, ..., 0.9 of the share of annotators, between 0.1 and 1.

    Args:
        prediction: how many annotators mark each voxel, uint8 [*S], 0 to `annotators`.
        reference: the same for the truth.
        annotators: how many there are.

    Raises:
        ValueError: the shapes differ, or a count is larger than `annotators`.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"expected one shape, got {prediction.shape} and {reference.shape}")
    if max(prediction.max(initial=0), reference.max(initial=0)) > annotators:
        raise ValueError(f"a count is larger than the number of annotators, {annotators}")
    # In whole numbers: 0.1 * 6 is a little more than 3 / 5. -(-a // b) rounds up.
    least = [-(-step * annotators // STEPS) for step in range(STEPS)]
    by_least = {count: dice(prediction >= count, reference >= count) for count in set(least)}
    return float(np.mean([by_least[count] for count in least]))


def qubiq() -> Metric:
    """The metric of `metrics=qubiq`: one number of the case, which stands in the rows of all of its regions."""
    return Metric(
        "swept_dice", "Dice over thresholds 0.0 to 0.9 (>=), all regions", _of_case, failed=EMPTY, best=1.0
    )


def _of_case(masks: Masks) -> float:
    if masks.labels is None:
        raise ValueError("swept_dice is of a whole case, not of one region")
    prediction, reference = (to_source(labels, ANNOTATORS) for labels in masks.labels)
    return threshold_dice(prediction, reference, COUNT)

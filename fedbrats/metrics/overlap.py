"""Overlap of two binary masks: Dice, sensitivity, specificity.

All tools agree on these for masks that are not empty; empty masks follow BraTS-2023 (and CaPTk, which says
the same): two empty masks agree perfectly, one empty mask is a complete miss.
"""

from __future__ import annotations

import numpy as np


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return 2 |P and R| / (|P| + |R|) of two bool masks of one shape; 1 if both are empty."""
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    if total == 0:
        return 1.0
    return 2.0 * int(np.count_nonzero(prediction & reference)) / total


def sensitivity(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of reference voxels that are predicted (bool masks of one shape).

    An empty reference gives 1 if the prediction is empty too and 0 if it is not, as in BraTS-2023.
    """
    positives = int(np.count_nonzero(reference))
    if positives == 0:
        return 0.0 if prediction.any() else 1.0
    return int(np.count_nonzero(prediction & reference)) / positives


def specificity(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of voxels outside the reference that are not predicted (bool masks of one shape).

    It depends on how much background the volume has: always pass the whole volume, not a crop. A reference
    that fills the volume leaves nothing to be right about and gives 0, as in BraTS-2023.
    """
    negatives = reference.size - int(np.count_nonzero(reference))
    if negatives == 0:
        return 0.0
    false_positives = int(np.count_nonzero(prediction & ~reference))
    return (negatives - false_positives) / negatives

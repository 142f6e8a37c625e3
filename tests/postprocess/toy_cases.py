"""Small cases with a few voxels of each label."""

from __future__ import annotations

import numpy as np

from fedbrats.data.regions import regions_from_labels
from fedbrats.postprocess.fitting import FitCase

CUBIC = (10.0, 10.0, 10.0)  # mm: a voxel is 1 mL


def line(*labels: int) -> np.ndarray:
    """Canonical labels [n, 1, 1] in a row."""
    return np.array(labels, np.uint8).reshape(-1, 1, 1)


def sure(labels: np.ndarray) -> np.ndarray:
    """Region probabilities that say `labels` with certainty."""
    return regions_from_labels(labels).astype(np.float32)


def case(predicted: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float] = CUBIC) -> FitCase:
    """A case whose network was sure."""
    return FitCase(predicted, sure(predicted), spacing, truth=truth)


def et(voxels: int, length: int = 10, ncr: int = 0) -> np.ndarray:
    """So many voxels of ET, then of NCR, then oedema."""
    return line(*[3] * voxels, *[1] * ncr, *[2] * (length - voxels - ncr))

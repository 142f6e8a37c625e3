"""How much of a tumour could be segmented by choosing supervoxels, however well they are chosen."""

from __future__ import annotations

import numpy as np


def achievable_accuracy(supervoxels: np.ndarray, truth: np.ndarray) -> float | None:
    """Achievable segmentation accuracy in the tumour: share of its voxels that lie in a supervoxel of their label.

    "Multimodal supervoxel merging" (BrainLes 2021), section 4.2: "computed in the tumor's region", without a formula.
    A supervoxel has the label that most of its voxels have, background included, the smaller of two that have as many.

    Args:
        supervoxels: integers [X, Y, Z].
        truth: labels of the same shape, 0 is background; what else the numbers mean does not matter.

    Returns:
        From 0 to 1; None where there is no tumour.

    Raises:
        ValueError: the shapes differ.
    """
    if supervoxels.shape != truth.shape:
        raise ValueError(f"supervoxels {supervoxels.shape} and labels {truth.shape} do not belong together")
    tumour = truth > 0
    if not tumour.any():
        return None
    known, label = np.unique(truth, return_inverse=True)
    region = supervoxels.ravel().astype(np.int64)
    table = np.bincount(region * len(known) + label.ravel(), minlength=(region.max() + 1) * len(known))
    most = table.reshape(-1, len(known)).argmax(axis=1)
    return float(np.mean(most[region[tumour.ravel()]] == label.reshape(truth.shape)[tumour]))

"""The floor: the whole tumour as what is bright in FLAIR. Nothing is trained, so a trained network must be above it.

"Challenging Current Semi-supervised Anomaly Segmentation Methods for Brain MRI" (BrainLes 2021), sections 3.3 and 3.4:
the histogram of the FLAIR image is equalised with 256 bins over the voxels of the brain, the result is thresholded, and
connected components of fewer than 20 voxels are dropped. Printed for BraTS 2020: a Dice of 0.666 (128 x 128, slices 15
to 125, Table 4).

That Dice is an upper limit: the paper tries 100 thresholds on the labels of the cases that it scores and reports the
best. Here nothing is fitted. An equalised value is the share of the brain that is darker, so a threshold says how much
of the brain is called tumour, and `report.floor` is set by how large tumours are: Table 1 has 5 pieces a scan of 18,027
voxels of 1 mm on average, 90 mL, which is 6 % of a brain of some 1.4 L.

The print leaves open which voxels touch (26 neighbours here, as BraTS counts lesions). It drops pieces at a resolution
of 128 x 128 and of 224 x 224; here voxels are those of the case.
"""

from __future__ import annotations

import numpy as np

from fedbrats.data.regions import BACKGROUND, ED
from fedbrats.postprocess.relabel import components
from fedbrats.tasks.segmentation import LEADING

REGIONS = (
    LEADING,
)  # all that brightness in FLAIR tells; of the tumour core and what enhances there is nothing
BINS = 256
LEAST = 20  # voxels of a piece that stays


def equalised(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Histogram equalisation: for each of `values` [n] the share of all that are darker, float64 [n] in (0, 1].

    The cumulated histogram at the centres of `bins` equal bins from the smallest to the largest value, linear in
    between, as `skimage.exposure.equalize_hist` does it.
    """
    counts, edges = np.histogram(values, bins)
    return np.interp(values, (edges[:-1] + edges[1:]) / 2, counts.cumsum() / counts.sum())


def flair_threshold(flair: np.ndarray, cut: float) -> np.ndarray:
    """Segment the whole tumour in a FLAIR image.

    Args:
        flair: one skull-stripped image [X, Y, Z] of any scale, exactly 0 outside the brain.
        cut: share of the brain's voxels that are darker than tumour, in (0, 1).

    Returns:
        Canonical labels uint8 [X, Y, Z]: the whole tumour, written as oedema.

    Raises:
        ValueError: every voxel is 0.
    """
    brain = flair != 0
    if not brain.any():
        raise ValueError("there is no FLAIR to threshold: every voxel is 0")
    bright = np.zeros(flair.shape, bool)
    bright[brain] = equalised(flair[brain].astype(np.float64)) > cut
    numbers, sizes = components(bright)
    return np.where((sizes >= LEAST)[numbers], ED, BACKGROUND).astype(np.uint8)

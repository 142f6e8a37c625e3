"""All scores of one case, and the row format of `cases.csv`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedbrats.data.regions import REGIONS, label_numbers, regions_from_labels
from fedbrats.metrics.hd95 import BRATS2023_PENALTY, PENALTY, Spacing, check_convention, hd95
from fedbrats.metrics.lesionwise import lesionwise
from fedbrats.metrics.overlap import dice, sensitivity, specificity

SCORES = ("dice", "hd95", "sensitivity", "specificity", "lesion_dice", "lesion_hd95")
VOLUMES = ("volume_true_ml", "volume_pred_ml")
CASE_COLUMNS = ("arm", "site", "case", "region", *SCORES, *VOLUMES, "status")


def score_case(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], convention: str
) -> dict[str, dict[str, float]]:
    """Score one predicted label volume against its reference.

    Args:
        prediction: canonical labels (0, 1 = NCR, 2 = ED, 3 = ET), integers [X, Y, Z], the whole volume.
        reference: the same for the truth.
        spacing: voxel size in mm along X, Y, Z.
        convention: how HD95 is measured: brats2023, captk or monai. Lesion-wise scores are always brats2023.

    Returns:
        For each region of `REGIONS`: dice, sensitivity, specificity, lesion_dice (0 to 1), hd95, lesion_hd95
        (mm), volume_true_ml, volume_pred_ml (mL). Never NaN or infinite.

    Raises:
        ValueError: unknown convention, shapes that differ or are not 3D, labels other than 0 to 3, a spacing
            that is not three positive numbers.
    """
    check_convention(convention)
    size = _checked_spacing(spacing)
    if prediction.shape != reference.shape or reference.ndim != 3:
        raise ValueError(
            f"expected two 3D volumes of one shape, got {prediction.shape} and {reference.shape}"
        )
    for name, labels in (("prediction", prediction), ("reference", reference)):
        unexpected = sorted(label_numbers(labels) - {0, 1, 2, 3})
        if unexpected:
            raise ValueError(f"{name}: unexpected labels {unexpected}, canonical labels are 0, 1, 2, 3")
    pairs = zip(REGIONS, regions_from_labels(prediction), regions_from_labels(reference), strict=True)
    return {region: _score_region(p, r, size, convention) for region, p, r in pairs}


def worst_scores(convention: str) -> dict[str, float]:
    """Return the scores of a case without a usable prediction: 0 for shares, the penalty for distances.

    Raises:
        ValueError: unknown convention.
    """
    check_convention(convention)
    return {**dict.fromkeys(SCORES, 0.0), "hd95": PENALTY[convention], "lesion_hd95": BRATS2023_PENALTY}


def _score_region(p: np.ndarray, r: np.ndarray, spacing: Spacing, convention: str) -> dict[str, float]:
    lesions = lesionwise(p, r, spacing)
    ml = float(np.prod(spacing)) / 1000
    return {
        "dice": dice(p, r),
        "hd95": hd95(p, r, spacing, convention),
        "sensitivity": sensitivity(p, r),
        "specificity": specificity(p, r),
        "lesion_dice": lesions.dice,
        "lesion_hd95": lesions.hd95,
        "volume_true_ml": int(np.count_nonzero(r)) * ml,
        "volume_pred_ml": int(np.count_nonzero(p)) * ml,
    }


def _checked_spacing(spacing: Sequence[float]) -> Spacing:
    values = [float(v) for v in spacing]
    if len(values) != 3 or not all(np.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"spacing must be three positive numbers in mm, got {values}")
    return (values[0], values[1], values[2])

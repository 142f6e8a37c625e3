"""All scores of one case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedbrats.data.family_table import GLIOMA, Lesions
from fedbrats.data.regions import REGIONS, label_numbers, regions_from_labels
from fedbrats.metrics.hd95 import Spacing, check_convention
from fedbrats.metrics.table import METRICS, Masks, Metric


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    convention: str,
    metrics: Sequence[Metric] = METRICS,
    lesions: Lesions = GLIOMA,
) -> dict[str, dict[str, float]]:
    """Score one predicted label volume against its reference.

    Args:
        prediction: canonical labels (0, 1 = NCR, 2 = ED, 3 = ET), integers [X, Y, Z], the whole volume.
        reference: the same for the truth.
        spacing: voxel size in mm along X, Y, Z.
        convention: how HD95 is measured: brats2023, captk or monai. Lesion-wise scores always go by the rule
            of brats2023.
        metrics: what is scored.
        lesions: constants of the lesion-wise scores, those of the case's family.

    Returns:
        For each region of `REGIONS`: the score by each metric (shares 0 to 1, distances in mm), volume_true_ml,
        volume_pred_ml (mL). Never NaN or infinite.

    Raises:
        ValueError: unknown convention, shapes that differ or are not 3D, labels other than 0 to 3, a spacing
            that is not three positive numbers, a metric that gives no finite number.
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
    whole, found = (prediction, reference), dict[str, dict[str, float]]()
    for region, p, r in pairs:
        masks = Masks(p, r, size, convention, lesions.of_region(region), whole)
        found[region] = _score_region(region, masks, metrics)
    return found


def _score_region(region: str, masks: Masks, metrics: Sequence[Metric]) -> dict[str, float]:
    scores = {metric.name: float(metric.of(masks)) for metric in metrics}
    for name, value in scores.items():
        if not np.isfinite(value):
            raise ValueError(f"metric {name} of {region} is {value}, expected a finite number")
    ml = float(np.prod(masks.spacing)) / 1000
    return {
        **scores,
        "volume_true_ml": int(np.count_nonzero(masks.reference)) * ml,
        "volume_pred_ml": int(np.count_nonzero(masks.prediction)) * ml,
    }


def _checked_spacing(spacing: Sequence[float]) -> Spacing:
    values = [float(v) for v in spacing]
    if len(values) != 3 or not all(np.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"spacing must be three positive numbers in mm, got {values}")
    return (values[0], values[1], values[2])

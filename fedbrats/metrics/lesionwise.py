"""Lesion-wise Dice and HD95 of BraTS 2023 (https://github.com/rachitsaluja/BraTS-2023-Metrics).

The overall Dice hides small lesions; here every lesion counts alike. The rule (HD95 is always `brats2023`), with the
constants of adult glioma; other families have others, see `data.family_table`:

1. Reference voxels whose masks, grown by three steps, touch are one lesion. A step adds the 18 face and edge
   neighbours; touching includes corners.
2. A prediction component (26 neighbours) belongs to every lesion whose grown mask it meets.
3. A lesion is scored against all its components together: Dice and HD95; without any, Dice 0 and HD95 374 mm.
4. Lesions of at most 50 mm3 (50 voxels at 1 mm) are left out, and so are the components that belong to them.
5. A component that belongs to no lesion is a false lesion: Dice 0 and HD95 374 mm, whatever its size.

The scores are the means over the lesions of 3 and 5. Without any of them Dice is 1 and HD95 0.

The code of 2024 (https://github.com/rachitsaluja/BraTS-2024-Metrics) changed constants, which are followed, and the
rule, which is not: it also joins and leaves out components of the prediction by growth and size, and a missed or false
lesion costs 337 mm for GLI and the image's diagonal for MET.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from fedbrats.data.family_table import GLIOMA, Lesions
from fedbrats.metrics.hd95 import BRATS2023_PENALTY, Spacing, hd95, union_box
from fedbrats.metrics.overlap import dice

_STEP = ndimage.generate_binary_structure(3, 2)
_TOUCHING = ndimage.generate_binary_structure(3, 3)


class LesionScores(NamedTuple):
    """Mean over lesions: dice, hd95 (mm); and how many were found, missed and false."""

    dice: float
    hd95: float
    found: int
    missed: int
    false: int


def lesionwise(
    prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, rule: Lesions = GLIOMA, crop: bool = True
) -> LesionScores:
    """Score one region lesion by lesion.

    Args:
        prediction: bool mask [X, Y, Z].
        reference: bool mask of the same shape.
        spacing: voxel size in mm along X, Y, Z.
        rule: the constants for this region.
        crop: work inside the bounding box of both masks; same values, much less time.
    """
    if crop:
        # No margin: a growing path clamped to the box is still a path, so nothing outside joins or meets more.
        box = union_box(prediction, reference, margin=0)
        prediction, reference = prediction[box], reference[box]
    grown, lesions = ndimage.label(_grow(reference, rule.growth), _TOUCHING)
    components, predicted = ndimage.label(prediction, _TOUCHING)
    met = _meetings(grown, components)
    volumes = np.bincount(grown[reference], minlength=lesions + 1) * float(np.prod(spacing))
    dices, distances, missed = [], [], 0
    for lesion in np.flatnonzero(volumes > rule.smallest_mm3):
        mine = np.zeros(predicted + 1, bool)
        mine[met[met[:, 0] == lesion, 1]] = True
        truth, guess = reference & (grown == lesion), mine[components]
        missed += not mine.any()
        dices.append(dice(guess, truth))
        distances.append(hd95(guess, truth, spacing, "brats2023"))
    false = predicted - len(np.unique(met[:, 1]))
    counted = len(dices) + false
    if counted == 0:
        return LesionScores(1.0, 0.0, 0, 0, 0)
    return LesionScores(
        dice=float(np.sum(dices)) / counted,
        hd95=(float(np.sum(distances)) + false * BRATS2023_PENALTY) / counted,
        found=len(dices) - missed,
        missed=missed,
        false=false,
    )


def _grow(mask: np.ndarray, steps: int) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(mask, structure=_STEP, iterations=steps))


def _meetings(grown: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Pairs (lesion, component) that share a voxel, int [n, 2]."""
    both = (grown > 0) & (components > 0)
    return np.unique(np.stack([grown[both], components[both]], axis=1), axis=0)

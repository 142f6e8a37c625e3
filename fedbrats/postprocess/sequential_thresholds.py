"""Thresholds per class, painted over each other: the first post-processing step of nnSegNet.

Jabareen and Lukassen, BrainLes 2021, section 2.5: the mask of WT is painted where its value exceeds a threshold, then
NCR, then ET, each over what was there. The paper searches the three thresholds with a tree-structured Parzen estimator
(optuna), 1000 combinations per fold, and takes the median over five folds; the values are in a figure only.

Chosen here: the search is a full grid, 6859 combinations in steps of 0.05, and exact, because the joint histogram of
the three values and the true label holds all that their Dice needs. It takes one pass and a few megabytes, and no
package. The sites of a federation take the place of the folds.

The paper says "softmax for every class", but the network it counts has three outputs. What stands for NCR is then
chosen as follows. With exclusive classes (4 channels) it is the probability of NCR. With region outputs (3 channels)
it is that of TC, as nnU-Net paints its regions one over the other; ET painted last makes the rest of TC necrosis.
p(TC) - p(ET) would be no better: a voxel that is surely core, but undecided between necrosis and ET, would be oedema.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fedbrats.data.regions import ED, ET, NCR, REGIONS, regions_from_labels
from fedbrats.postprocess.fitting import FitCase, Predicted, first_best
from fedbrats.postprocess.relabel import given, known
from fedbrats.tasks.segmentation import CLASS

GRID = np.round(np.arange(0.05, 0.96, 0.05), 2).astype(np.float32)
NAMES = ("wt", "ncr", "et")
AXES = {
    "WT": (0, 1, 2),
    "TC": (1, 2),
    "ET": (2,),
}  # thresholds whose painting makes a voxel part of the region


@dataclass(frozen=True)
class SequentialThresholds:
    """Paint WT (as ED), NCR and ET where their value exceeds `wt`, `ncr`, `et`; what is None is fitted.

    It paints from the probabilities, so it must be the first step.

    Raises:
        ValueError: a threshold outside [0, 1).
    """

    wt: float | None = None
    ncr: float | None = None
    et: float | None = None

    def __post_init__(self) -> None:
        for name in NAMES:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name}={value}: a threshold lies in [0, 1), or is null to fit it")

    @property
    def name(self) -> str:
        if not self.fitted:
            return "sequential thresholds, to be fitted"
        return f"thresholds WT {self.wt:.3g}, NCR {self.ncr:.3g}, ET {self.et:.3g}"

    @property
    def fitted(self) -> bool:
        return None not in self._given

    @property
    def regions(self) -> tuple[str, ...]:
        return REGIONS

    @property
    def _given(self) -> tuple[float | None, ...]:
        return tuple(getattr(self, name) for name in NAMES)

    def apply(self, case: Predicted) -> np.ndarray:
        """New labels, painted from `probabilities` alone."""
        painted = np.zeros_like(case.labels)
        for value, threshold, label in zip(
            _values(case.probabilities), self._given, (ED, NCR, ET), strict=True
        ):
            painted[value > np.float32(given(threshold))] = label
        return painted

    def fit(self, cases: Iterable[FitCase]) -> dict[str, float]:
        """The thresholds of the grid with the best mean Dice of WT, TC and ET over `cases`.

        Given thresholds stay. Of equal combinations the one nearest to 0.5 wins (sum of distances), which is what
        the network was trained for; then the smaller ones.
        """
        grids = [GRID if fixed is None else np.array([fixed], np.float32) for fixed in self._given]
        scores = np.zeros([len(grid) for grid in grids])
        seen = 0
        for case in cases:
            scores = scores + _mean_dice(_values(case.probabilities), case.truth, grids)
            seen += 1
        if not seen:
            raise ValueError("nothing to fit on: no validation case")
        combinations = np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1).reshape(-1, len(grids))
        distance = np.abs(combinations.astype(float) - 0.5).sum(axis=1).round(6)
        order = np.lexsort([*combinations.T[::-1], distance])
        best = first_best(combinations[order].tolist(), scores.ravel()[order] / seen)
        found = zip(NAMES, self._given, best, strict=True)
        return {name: round(float(value), 6) for name, fixed, value in found if fixed is None}

    def with_parameters(self, parameters: dict[str, float]) -> Self:
        free = [name for name, fixed in zip(NAMES, self._given, strict=True) if fixed is None]
        return replace(self, **known(self, parameters, free))


def _values(probabilities: np.ndarray) -> list[np.ndarray]:
    """What is compared with the thresholds of WT, NCR and ET, each float32 [X, Y, Z]."""
    values = np.asarray(probabilities, np.float32)
    return (
        [values[NCR] + values[ED] + values[ET], values[NCR], values[ET]]
        if len(values) == CLASS
        else [*values]
    )


def _mean_dice(values: list[np.ndarray], truth: np.ndarray, grids: list[np.ndarray]) -> np.ndarray:
    """Mean Dice of the regions for every combination of thresholds, float64 [len(grid) for each grid].

    A voxel is left unpainted by threshold i of a grid where its level, the number of thresholds below its value, is
    at most i. So the cumulative histogram of the levels counts what is not in a predicted region.
    """
    shape = tuple(len(grid) + 1 for grid in grids)
    levels = [np.searchsorted(grid, value) for grid, value in zip(grids, values, strict=True)]
    place = np.ravel_multi_index([level.ravel() for level in levels], shape)
    size, total = int(np.prod(shape)), np.zeros([len(grid) for grid in grids])
    for region, true in zip(REGIONS, regions_from_labels(truth), strict=True):
        outside = _unpainted(np.bincount(place, minlength=size).reshape(shape), region)
        missed = _unpainted(np.bincount(place[true.ravel()], minlength=size).reshape(shape), region)
        predicted, positives = truth.size - outside, int(np.count_nonzero(true))
        both = predicted + positives
        total = total + np.where(both == 0, 1.0, 2 * (positives - missed) / np.maximum(both, 1))
    return total / len(REGIONS)


def _unpainted(histogram: np.ndarray, region: str) -> np.ndarray:
    """Voxels of `histogram` (levels of WT, NCR, ET) outside the painted `region`, for each combination."""
    counts = histogram.astype(np.int64)
    for axis in range(3):
        if axis in AXES[region]:
            counts = np.take(counts.cumsum(axis=axis), range(counts.shape[axis] - 1), axis=axis)
        else:
            counts = counts.sum(axis=axis, keepdims=True)
    return counts

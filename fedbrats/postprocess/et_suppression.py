"""ET suppression: the second post-processing step of nnSegNet, a decision tree of depth two against false ET.

Jabareen and Lukassen, BrainLes 2021, section 2.5 and Fig. 5: where at most 129.5 voxels of ET and more than 16954.0
voxels of NCR are predicted, ET is dropped, and its voxels get the class with the next highest softmax. The two numbers
fit the paper's networks on BraTS 2021 and are no default here: thresholds are given in mL or fitted on validation data.

With exclusive classes (4 channels) the next highest is the largest of the other three. With region outputs (3 channels)
there is no such order; a voxel gets what the network says there without its ET channel: NCR where p(TC) > 0.5, else ED
where p(WT) > 0.5, else background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fedbrats.data.regions import ET, NCR, REGIONS, labels_from_regions
from fedbrats.metrics.overlap import dice
from fedbrats.postprocess.fitting import FitCase, Predicted, first_best
from fedbrats.postprocess.relabel import check_at_least_zero, given, known, voxel_ml
from fedbrats.tasks.segmentation import CLASS

NAMES = ("et_ml", "ncr_ml")


@dataclass(frozen=True)
class EtSuppression:
    """Drop ET where at most `et_ml` mL of it and more than `ncr_ml` mL of NCR are predicted; None is fitted.

    A case without NCR is never touched; a minimum volume does that.

    Raises:
        ValueError: a negative threshold.
    """

    et_ml: float | None = None
    ncr_ml: float | None = None

    def __post_init__(self) -> None:
        check_at_least_zero(et_ml=self.et_ml, ncr_ml=self.ncr_ml)

    @property
    def name(self) -> str:
        if not self.fitted:
            return "ET suppression, to be fitted"
        return f"ET of {self.et_ml:.3g} mL or less dropped beside NCR above {self.ncr_ml:.3g} mL"

    @property
    def fitted(self) -> bool:
        return None not in (self.et_ml, self.ncr_ml)

    @property
    def regions(self) -> tuple[str, ...]:
        return REGIONS

    def apply(self, case: Predicted) -> np.ndarray:
        """New labels, ET relabelled where the rule holds."""
        changed = case.labels.copy()
        et, ncr = _volumes(case.labels, case.spacing)
        if et <= given(self.et_ml) and ncr > given(self.ncr_ml):
            there = case.labels == ET
            changed[there] = _next_best(case.probabilities[:, there])
        return changed

    def fit(self, cases: Iterable[FitCase]) -> dict[str, float]:
        """The thresholds with the best mean Dice of ET (two empty masks: 1) over `cases`, of all pairs of volumes seen.

        Of equal pairs the smallest `et_ml` wins, then the largest `ncr_ml`: what changes least. A rule without effect
        is 0 and 0.
        """
        volumes, gains = [], []
        for case in cases:
            mask, truth = case.labels == ET, case.truth == ET
            volumes.append(_volumes(case.labels, case.spacing))
            gains.append((0.0 if truth.any() else 1.0) - dice(mask, truth))
        if not volumes:
            raise ValueError("nothing to fit on: no validation case")
        et, ncr = np.asarray(volumes).T
        pairs = [(0.0, 0.0)] if self.et_ml is None else []
        pairs += [(a, b) for a in _thresholds(et, self.et_ml) for b in _thresholds(ncr, self.ncr_ml)[::-1]]
        scores = [float(np.dot((et <= a) & (ncr > b), gains)) for a, b in pairs]
        best = dict(zip(NAMES, map(float, first_best(pairs, scores)), strict=True))
        return {name: best[name] for name in self._free}

    @property
    def _free(self) -> list[str]:
        return [name for name in NAMES if getattr(self, name) is None]

    def with_parameters(self, parameters: dict[str, float]) -> Self:
        return replace(self, **known(self, parameters, self._free))


def _volumes(labels: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """Volumes of ET and NCR in mL."""
    ml = voxel_ml(spacing)
    return int(np.count_nonzero(labels == ET)) * ml, int(np.count_nonzero(labels == NCR)) * ml


def _thresholds(volumes: np.ndarray, fixed: float | None) -> list[float]:
    return [fixed] if fixed is not None else sorted({0.0, *map(float, volumes)})


def _next_best(probabilities: np.ndarray) -> np.ndarray:
    """Labels uint8 [voxels] without ET, from channel probabilities [channels, voxels]."""
    if len(probabilities) == CLASS:
        return probabilities[:ET].argmax(axis=0).astype(np.uint8)  # ET is the last class
    found = probabilities > 0.5
    found[REGIONS.index("ET")] = False
    return labels_from_regions(found)

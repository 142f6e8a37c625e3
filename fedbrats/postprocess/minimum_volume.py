"""Minimum volume: a region that is predicted too small to be believed is not predicted at all.

Residual 3D U-Net with localization (BrainLes 2021), post-processing: "fewer voxels than a threshold" makes an empty
prediction; of 100, 400 and 600 voxels for ET, 600 was best. DeepSeg with nnU-Net (same volume): fewer than 200 voxels
of ET become necrosis. The first paper has one model per region and leaves open what the voxels become; here they get
the label that keeps the larger regions, which is the second paper's rule: ET becomes NCR, TC becomes ED, WT becomes
background.

The reason is BraTS's rule for empty masks: where there is no ET, one predicted voxel costs the whole Dice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fedbrats.metrics.overlap import dice
from fedbrats.postprocess.fitting import FitCase, Predicted, first_best
from fedbrats.postprocess.relabel import (
    check_at_least_zero,
    check_region,
    given,
    known,
    region_mask,
    voxel_ml,
    without,
)


@dataclass(frozen=True)
class MinimumVolume:
    """Empty `region` where less of it is predicted than `ml` (mL) or `voxels`; with neither, mL are fitted.

    Raises:
        ValueError: unknown region, both thresholds, a negative one.
    """

    region: str = "ET"
    ml: float | None = None
    voxels: float | None = None

    def __post_init__(self) -> None:
        check_region(self.region)
        check_at_least_zero(ml=self.ml, voxels=self.voxels)
        if self.ml is not None and self.voxels is not None:
            raise ValueError("ml and voxels exclude each other: set one, or neither to fit ml")

    @property
    def name(self) -> str:
        if not self.fitted:
            return f"{self.region} minimum volume, to be fitted"
        size = f"{self.ml:.3g} mL" if self.ml is not None else f"{self.voxels:g} voxels"
        return f"{self.region} minimum {size}"

    @property
    def fitted(self) -> bool:
        return self.ml is not None or self.voxels is not None

    @property
    def regions(self) -> tuple[str, ...]:
        return (self.region,)

    def apply(self, case: Predicted) -> np.ndarray:
        """New labels, `region` emptied where it is smaller than the threshold (just as large stays)."""
        mask = region_mask(case.labels, self.region)
        count = int(np.count_nonzero(mask))
        if self.voxels is not None:
            too_small = count < self.voxels
        else:
            too_small = count * voxel_ml(case.spacing) < given(self.ml)
        return without(case.labels, mask, self.region) if too_small else case.labels.copy()

    def fit(self, cases: Iterable[FitCase]) -> dict[str, float]:
        """The threshold in mL with the best mean Dice of the region (two empty masks: 1) over `cases`.

        Candidates are 0 and, for each volume seen, that volume and a voxel, which is the smallest threshold that
        empties it. Of equal candidates the smallest wins, so a threshold without effect is 0.
        """
        volumes, larger, kept, emptied = [], [0.0], [], []
        for case in cases:
            mask, truth = region_mask(case.labels, self.region), region_mask(case.truth, self.region)
            count, ml = int(np.count_nonzero(mask)), voxel_ml(case.spacing)
            volumes.append(count * ml)
            larger += [(count + 1) * ml] if count else []
            kept.append(dice(mask, truth))
            emptied.append(0.0 if truth.any() else 1.0)
        candidates = sorted(set(larger))
        small = np.asarray(volumes) < np.asarray(candidates)[:, None]
        means = np.where(small, emptied, kept).mean(axis=1) if volumes else []
        return {"ml": float(first_best(candidates, means))}

    def with_parameters(self, parameters: dict[str, float]) -> Self:
        return replace(self, **known(self, parameters, () if self.voxels is not None else ("ml",)))

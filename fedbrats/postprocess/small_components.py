"""Removal of small components: each separate piece of a region must have a minimum volume of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from fedbrats.postprocess.fitting import FitCase, Predicted
from fedbrats.postprocess.relabel import (
    check_at_least_zero,
    check_region,
    components,
    known,
    region_mask,
    voxel_ml,
    without,
)


@dataclass(frozen=True)
class SmallComponents:
    """Remove connected components of `region` (26 neighbours) below `ml` mL; nothing is fitted.

    Their voxels become background (WT), ED (TC) or NCR (ET). BraTS 2023 counts every false component in its
    lesion-wise scores, whatever its size.

    Raises:
        ValueError: unknown region, a volume that is not a positive number.
    """

    region: str
    ml: float

    def __post_init__(self) -> None:
        check_region(self.region)
        check_at_least_zero(ml=self.ml)
        if not self.ml:
            raise ValueError(f"ml={self.ml}: SmallComponents needs a volume above 0 mL")

    @property
    def name(self) -> str:
        return f"{self.region} components of {self.ml:g} mL or more"

    @property
    def fitted(self) -> bool:
        return True

    @property
    def regions(self) -> tuple[str, ...]:
        return (self.region,)

    def apply(self, case: Predicted) -> np.ndarray:
        """New labels without the small components (just as large stays)."""
        numbers, sizes = components(region_mask(case.labels, self.region))
        return without(case.labels, (sizes * voxel_ml(case.spacing) < self.ml)[numbers], self.region)

    def fit(self, cases: Iterable[FitCase]) -> dict[str, float]:
        return {}

    def with_parameters(self, parameters: dict[str, float]) -> Self:
        known(self, parameters, ())
        return self

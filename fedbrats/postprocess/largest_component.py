"""Largest component: of several separate pieces of a region only the largest is kept.

It suits data sets with one tumour per patient. Of a glioma with several foci it leaves one, so it is off by default,
and the report shows whether it helps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from fedbrats.postprocess.fitting import FitCase, Predicted
from fedbrats.postprocess.relabel import check_region, components, known, region_mask, without


@dataclass(frozen=True)
class LargestComponent:
    """Keep the largest connected component of `region` (26 neighbours: corners touch).

    Voxels of the other components become background (WT), ED (TC) or NCR (ET). Of two equally large ones the first
    in scan order stays. Nothing is fitted.

    Raises:
        ValueError: unknown region.
    """

    region: str = "WT"

    def __post_init__(self) -> None:
        check_region(self.region)

    @property
    def name(self) -> str:
        return f"{self.region} largest component"

    @property
    def fitted(self) -> bool:
        return True

    @property
    def regions(self) -> tuple[str, ...]:
        return (self.region,)

    def apply(self, case: Predicted) -> np.ndarray:
        """New labels with one component of the region at most."""
        numbers, sizes = components(region_mask(case.labels, self.region))
        return without(case.labels, numbers != int(sizes.argmax()), self.region)

    def fit(self, cases: Iterable[FitCase]) -> dict[str, float]:
        return {}

    def with_parameters(self, parameters: dict[str, float]) -> Self:
        known(self, parameters, ())
        return self

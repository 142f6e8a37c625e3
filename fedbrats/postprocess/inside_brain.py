"""Inside the brain: no tumour is predicted where every modality is 0, as outside the brain of a skull-stripped image.

A network sees such voxels at the border of its windows, and one that is barely trained predicts tens of thousands of
them as tumour. Not from a paper; nnU-Net crops to what is not 0, which leaves the corners of the box.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from fedbrats.data.regions import BACKGROUND
from fedbrats.postprocess.fitting import FitCase, Predicted
from fedbrats.postprocess.relabel import known


@dataclass(frozen=True)
class InsideBrain:
    """Background wherever the brain is not; without a known brain (`data.brain`) nothing is changed."""

    @property
    def name(self) -> str:
        return "inside the brain"

    @property
    def fitted(self) -> bool:
        return True

    @property
    def regions(self) -> tuple[str, ...]:
        return ()

    def apply(self, case: Predicted) -> np.ndarray:
        """New labels, background outside the brain."""
        kept = case.labels.copy()
        if case.brain is not None:
            kept[~case.brain] = BACKGROUND
        return kept

    def fit(self, cases: Iterable[FitCase]) -> dict[str, float]:
        """Nothing."""
        return {}

    def with_parameters(self, parameters: dict[str, float]) -> Self:
        known(self, parameters, ())
        return self

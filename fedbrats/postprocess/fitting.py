"""What fitting a step needs: the cases it is fitted on, and how the best candidate is picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

TIE = (
    1e-9  # scores that differ by less than this are equal; sums of the same numbers differ in their last bits
)
Candidate = TypeVar("Candidate")


@dataclass(frozen=True)
class FitCase:
    """A validation case: what a model made of it, and the truth."""

    labels: np.ndarray  # canonical uint8 [X, Y, Z], predicted, after the steps before the one that is fitted
    probabilities: np.ndarray  # of the channels, float32 [C, X, Y, Z], see `fedbrats.tasks.segmentation`
    truth: np.ndarray  # canonical uint8 [X, Y, Z]
    spacing: Sequence[float]  # mm
    brain: np.ndarray | None = None  # bool [X, Y, Z], where it is known


def first_best(candidates: Sequence[Candidate], scores: Sequence[float] | np.ndarray) -> Candidate:
    """The first of the `candidates` with the highest score, so that their order settles ties.

    Raises:
        ValueError: there are none, or a score is not finite.
    """
    values = np.asarray(scores, float)
    if not len(values) or len(values) != len(candidates) or not np.isfinite(values).all():
        raise ValueError("nothing to fit on: no validation case")
    return candidates[int(np.argmax(values >= values.max() - TIE))]

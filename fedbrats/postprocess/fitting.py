"""What a step works on and is fitted on, and how the best candidate is picked."""

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
class Predicted:
    """What a model made of a case."""

    labels: np.ndarray  # canonical uint8 [X, Y, Z], after the steps before
    probabilities: np.ndarray  # of the channels, float32 [C, X, Y, Z], see `fedbrats.tasks.segmentation`
    spacing: Sequence[float]  # mm
    brain: np.ndarray | None = None  # bool [X, Y, Z], where it is known


@dataclass(frozen=True, kw_only=True)
class FitCase(Predicted):
    """A validation case: what a model made of it, and the truth."""

    truth: np.ndarray  # canonical uint8 [X, Y, Z]


def first_best(candidates: Sequence[Candidate], scores: Sequence[float] | np.ndarray) -> Candidate:
    """The first of the `candidates` with the highest score, so that their order settles ties.

    Raises:
        ValueError: there are none, or a score is not finite.
    """
    values = np.asarray(scores, float)
    if not len(values) or len(values) != len(candidates) or not np.isfinite(values).all():
        raise ValueError("nothing to fit on: no validation case")
    return candidates[int(np.argmax(values >= values.max() - TIE))]

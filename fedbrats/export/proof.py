"""The proof of an export: the exported model beside the original on real cases.

Written down are differences and never a case's own score, its name or its institution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedbrats.config.targets import ConfigError
from fedbrats.tasks import segmentation as task

DIFFERENCE, LOST = 1e-3, 1e-3  # the usual limits: of a probability, and of Dice


@dataclass(frozen=True)
class Found:
    """What a model says of a case: probabilities float32 [C, *crop] and canonical labels uint8 of the whole volume.

    seconds: that it took from the preprocessed image to the labels, None where that was not measured.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    seconds: float | None = None


@dataclass(frozen=True)
class Proof:
    """How far an exported model is from the original, and how far it may be.

    cases: that were predicted by both; labelled: those with a reference. largest_difference: of two probabilities of a
    voxel. score_lost: region -> the largest loss in a case; where a case has a reference, the original's Dice less the
    exported one's, else 1 less the Dice between the two. seconds_original and seconds_exported: per case, where the
    export was made; None where they cannot be compared, as of a bundle, which reads the files of the case too.
    """

    cases: int
    labelled: int
    largest_difference: float
    score_lost: dict[str, float]
    limit_difference: float
    limit_score_lost: float
    seconds_original: float | None = None
    seconds_exported: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of `proof.json`."""
        return asdict(self)

    def require(self, instead: str = "") -> None:
        """Check the limits; `instead` says what else can be done than to raise them.

        Raises:
            ConfigError: one is passed; nothing may be exported then.
        """
        fix = f"nothing was exported; {instead}raise the limit only if you can say why"
        if not self.largest_difference <= self.limit_difference:
            raise ConfigError(
                f"max_difference={self.limit_difference:g}: probabilities of the exported model differ by "
                f"{self.largest_difference:.3g} from the original's; {fix}."
            )
        for region, lost in self.score_lost.items():
            if not lost <= self.limit_score_lost:
                raise ConfigError(
                    f"max_score_lost={self.limit_score_lost:g}: the exported model loses {lost:.3g} of {region} "
                    f"{task.MAIN_TITLE} "
                    f"in a case; {fix}."
                )


def compare(
    cases: Iterable[Any],
    original: Callable[[Any], Found],
    exported: Callable[[Any], Found],
    truth: Callable[[Any], np.ndarray | None],
    regions: Sequence[str],
    limits: tuple[float, float] = (DIFFERENCE, LOST),
) -> Proof:
    """Predict every case with both models.

    Args:
        cases: whatever the three functions take.
        original: and `exported`: what each says.
        truth: canonical labels uint8 of the whole volume, None for a case without.
        regions: that the model predicts.
        limits: largest difference of two probabilities, and of Dice.

    Raises:
        ConfigError: there is no case, or the two speak about volumes of different shapes.
    """
    largest, lost, number, labelled = 0.0, dict.fromkeys(regions, 0.0), 0, 0
    seconds: list[tuple[float | None, float | None]] = []
    for case in cases:
        number += 1
        one, other, reference = original(case), exported(case), truth(case)
        if one.probabilities.shape != other.probabilities.shape or one.labels.shape != other.labels.shape:
            raise ConfigError(
                f"the exported model gives {other.probabilities.shape} where the original gives "
                f"{one.probabilities.shape}: their preprocessing differs."
            )
        difference = float(np.abs(one.probabilities - other.probabilities).max())
        largest = max(largest, difference) if difference == difference else float("inf")
        labelled += reference is not None
        seconds.append((one.seconds, other.seconds))
        for region, loss in _losses(one.labels, other.labels, reference, regions).items():
            lost[region] = max(lost[region], loss)
    if not number:
        raise ConfigError(
            "data: no case that can be predicted, so there is no proof; name a folder with one."
        )
    return Proof(number, labelled, largest, lost, *limits, *_means(seconds))


def _means(seconds: Sequence[tuple[float | None, float | None]]) -> tuple[float, float] | tuple[None, None]:
    """Per case, of the original and of the export; one alone says nothing."""
    pairs = [(one, other) for one, other in seconds if one is not None and other is not None]
    if len(pairs) < len(seconds):
        return None, None
    return sum(one for one, _ in pairs) / len(pairs), sum(other for _, other in pairs) / len(pairs)


def _losses(
    original: np.ndarray, exported: np.ndarray, reference: np.ndarray | None, regions: Sequence[str]
) -> Mapping[str, float]:
    if reference is None:
        agree = task.main_scores(exported, original, regions)
        return {region: 1 - value for region, value in zip(regions, agree, strict=True)}
    before = task.main_scores(original, reference, regions)
    after = task.main_scores(exported, reference, regions)
    return {region: a - b for region, a, b in zip(regions, before, after, strict=True)}

"""The metrics, one line each: what is scored, sent, checked, written, summed up, printed and compared goes by it.

A metric of your own is a `Metric` that a function of yours returns; a run takes it by `metrics.more`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from hydra.utils import instantiate

from fedbrats.config.targets import ConfigError, check_target
from fedbrats.data.family_table import GLIOMA, Lesions
from fedbrats.metrics.hd95 import BRATS2023_PENALTY, CONVENTIONS, PENALTY, Spacing, check_convention, hd95
from fedbrats.metrics.lesionwise import LesionScores, lesionwise
from fedbrats.metrics.overlap import dice, sensitivity, specificity

LONGEST = 2000.0  # mm, more than the diagonal of a cubic metre
NAME = re.compile(r"[a-z][a-z0-9_]*")
VOLUMES = ("volume_true_ml", "volume_pred_ml")  # told beside the metrics
TAKEN = (
    "arm",
    "site",
    "case",
    "region",
    "status",
    "uncertainty",
    *VOLUMES,
)  # names of columns that are no metric


@dataclass(frozen=True)
class Masks:
    """One region of one case: `prediction` and `reference`, bool [X, Y, Z] of the whole volume.

    spacing: voxel size in mm along X, Y, Z; convention: `metrics.convention`; rule: constants of the lesion-wise scores
    for this region; labels: canonical labels of the whole case, prediction and reference, for what one
    region alone does not tell.
    """

    prediction: np.ndarray
    reference: np.ndarray
    spacing: Spacing
    convention: str
    rule: Lesions = GLIOMA
    labels: tuple[np.ndarray, np.ndarray] | None = None

    @cached_property
    def lesions(self) -> LesionScores:
        """Scores by lesion, worked out once for all metrics that need them."""
        return lesionwise(self.prediction, self.reference, self.spacing, self.rule)


@dataclass(frozen=True)
class Facts:
    """What a reader of scores has to know of their metric. A run writes it down, so no reader imports the metric.

    title, unit, decimals: as printed, without a unit for a share; failed: the score of a case without a usable
    prediction; best: the best score that there can be, None for 0 where lower is better and 1 elsewhere; convention: by
    which it was measured, "" where there is only one way.
    """

    title: str
    unit: str = ""
    decimals: int = 3
    lower_is_better: bool = False
    failed: float = 0.0
    convention: str = ""
    best: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest score that there can be, the one of a failed case being the worst; for intervals."""
        best = self.best if self.best is not None else 0.0 if self.lower_is_better else 1.0
        worst = best if np.isnan(self.failed) else self.failed
        return min(best, worst), max(best, worst)

    @property
    def range(self) -> tuple[float, float]:
        """What a score can be at all: `ends`, but a length may exceed its penalty; unknown ends bound nothing."""
        if np.isnan(self.failed):
            return -np.inf, np.inf
        low, high = self.ends
        return low, max(high, LONGEST) if self.unit == "mm" else high

    @property
    def named(self) -> str:
        """Title and unit: "HD95 (mm)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title, unit and convention: "HD95 in mm (brats2023)"."""
        unit = f" in {self.unit}" if self.unit else ""
        return f"{self.title}{unit}{f' ({self.convention})' if self.convention else ''}"


@dataclass(frozen=True)
class Metric:
    """One metric.

    name: of its column; of: the score of a region, finite for any masks; failed: the score of a case without a usable
    prediction, by convention where it depends on that, and the worst that there can be; the rest: as in `Facts`.
    """

    name: str
    title: str
    of: Callable[[Masks], float]
    unit: str = ""
    decimals: int = 3
    lower_is_better: bool = False
    failed: float | Mapping[str, float] = 0.0
    best: float | None = None

    def facts(self, convention: str) -> Facts:
        """What is known of its scores in a run with this convention; of an unknown one no score of a failed case."""
        common = (self.title, self.unit, self.decimals, self.lower_is_better)
        if isinstance(self.failed, Mapping):
            return Facts(*common, float(self.failed.get(convention, np.nan)), convention, self.best)
        return Facts(*common, float(self.failed), best=self.best)


METRICS = (
    Metric("dice", "Dice", lambda m: dice(m.prediction, m.reference)),
    Metric(
        "hd95",
        "HD95",
        lambda m: hd95(m.prediction, m.reference, m.spacing, m.convention),
        *("mm", 1, True, PENALTY),
    ),
    Metric("sensitivity", "Sensitivity", lambda m: sensitivity(m.prediction, m.reference)),
    Metric("specificity", "Specificity", lambda m: specificity(m.prediction, m.reference)),
    Metric("lesion_dice", "Lesion-wise Dice", lambda m: m.lesions.dice),
    Metric("lesion_hd95", "Lesion-wise HD95", lambda m: m.lesions.hd95, "mm", 1, True, BRATS2023_PENALTY),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def facts_of(metrics: Sequence[Metric], convention: str) -> dict[str, Facts]:
    """Facts by name, in the order of the metrics.

    Raises:
        ValueError: unknown convention.
    """
    check_convention(convention)
    return {metric.name: metric.facts(convention) for metric in metrics}


def worst(metrics: Mapping[str, Facts]) -> dict[str, float]:
    """The scores of a case without a usable prediction: 0 for shares, the penalty for distances."""
    return {name: facts.failed for name, facts in metrics.items()}


def with_more(nodes: Sequence[Any]) -> tuple[Metric, ...]:
    """`METRICS`, and those that the nodes of `metrics.more` build.

    Raises:
        ConfigError: a node that cannot be built or builds no usable metric, by its place and reason.
    """
    found = list(METRICS)
    for place, node in enumerate(nodes):
        key = f"metrics.more[{place}]"
        if not isinstance(node, Mapping):
            raise ConfigError(
                f"{key}={node}: write a _target_ and its arguments, {{_target_: package.function}}."
            )
        check_target(key, node)
        try:
            metric = instantiate(node)
        except Exception as error:
            raise ConfigError(f"{key}: {error.__cause__ or error}") from error
        if problem := _problem(metric, [known.name for known in found]):
            raise ConfigError(f"{key}: {node['_target_']} {problem}.")
        found.append(metric)
    return tuple(found)


def _problem(metric: Any, names: Sequence[str]) -> str:
    """Why `metric` cannot stand beside those called `names`, "" if it can."""
    if not isinstance(metric, Metric):
        return f"gives a {type(metric).__name__}, not a fedbrats.metrics.table.Metric"
    if not NAME.fullmatch(metric.name):
        return f"is called {metric.name!r}; a name has small letters, digits and underscores"
    if metric.name in (*names, *TAKEN):
        return f"is called {metric.name!r}, as another column is"
    by_convention = (
        metric.failed if isinstance(metric.failed, Mapping) else dict.fromkeys(CONVENTIONS, metric.failed)
    )
    if missing := [name for name in CONVENTIONS if not np.isfinite(by_convention.get(name, np.nan))]:
        return f"has no finite score of a failed case for {', '.join(missing)}"
    return ""

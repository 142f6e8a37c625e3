"""What a search makes as large as it can (`objective`), see studies/objective.py."""

from __future__ import annotations

from dataclasses import dataclass

MEAN, WORST_SITE = "mean", "worst_site"  # what `score` may say
ALL = "all"  # of `region`: the mean over the regions


@dataclass
class ObjectiveConfig:
    """What a search (`hydra/sweeper=optuna`) goes by."""

    score: str = MEAN  # of the validation cases: "mean" over all of them or "worst_site"
    region: str = ALL  # one region, or the mean over all
    max_epsilon: float | None = None  # a run that spends more is worth nothing

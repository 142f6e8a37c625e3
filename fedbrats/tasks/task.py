"""What the federation itself has to know of a task: what sites tell of their validation, and which model is better."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Task:
    """One task.

    name: of `task.name`; main: the metric, in [0, 1], that sites tell in every round, a mean over their cases; title:
    of that; columns: of `rounds.csv`, by what is predicted (regions, or the label); lower_is_better: whether the best
    model has the smallest; final and final_title: the metric by which arms are compared at the end, "" for the same.
    """

    name: str
    main: str
    title: str
    columns: Mapping[str, str]
    lower_is_better: bool = False
    final: str = ""
    final_title: str = ""

    @property
    def compared(self) -> tuple[str, str]:
        """The metric by which arms are compared at the end, and its title."""
        return (self.final, self.final_title) if self.final else (self.main, self.title)

    def in_order(self, found: Collection[str]) -> tuple[str, ...]:
        """What is predicted, of what was `found`, in the order of the task."""
        return tuple(region for region in self.columns if region in found)

    def reply_key(self, region: str) -> str:
        """Under which a site tells the main score of `region`."""
        return f"{self.main}-{region.lower()}"

    def round_columns(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Main scores by region as columns of `rounds.csv`."""
        return {self.columns[region]: value for region, value in scores.items()}

    def worth(self, scores: Mapping[str, float]) -> float:
        """What a model is worth by its main scores; the best round is the first with the largest."""
        mean = sum(scores.values()) / len(scores)
        return 1 - mean if self.lower_is_better else mean

    def worths(self, rounds: pd.DataFrame, regions: Collection[str] | None = None) -> pd.Series:
        """The same of every row of `rounds.csv`, of all that was told or of some `regions`."""
        mean = rounds[[self.columns[region] for region in regions or self.columns]].mean(axis=1)
        return 1 - mean if self.lower_is_better else mean

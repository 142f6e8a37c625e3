"""Do two groups of patients survive differently? Groups by k-medoids, the log-rank test, and its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import CensoredData, logrank

TAU = 0.05  # threshold of p; "predefined" (section 2.3), not printed


@dataclass(frozen=True)
class Groups:
    """Two groups of patients: mean [F], spread [F] and medoids [2, F] of their features."""

    mean: np.ndarray
    spread: np.ndarray
    medoids: np.ndarray

    def of(self, features: np.ndarray) -> np.ndarray:
        """Which group each patient is in, 0 or 1, of features float [N, F]."""
        scaled = (features - self.mean) / self.spread
        chosen: np.ndarray = np.linalg.norm(scaled[:, None] - self.medoids, axis=2).argmin(1)
        return chosen


def two_groups(features: np.ndarray) -> Groups:
    """K-medoids with K = 2 of patients' features float [N, F], the best of all pairs of patients.

    Glioblastoma sub-regions (BrainLes 2021), section 2.2. Chosen: Euclidean distance of features with mean 0 and
    standard deviation 1; a feature that is the same in all has no part.

    Raises:
        ValueError: fewer than two patients.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} patients: two groups need two or more")
    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    scaled = (features - mean) / spread
    apart = np.linalg.norm(scaled[:, None] - scaled, axis=2)
    best, medoids = math.inf, (0, 1)
    for first in range(len(features) - 1):
        costs = np.minimum(apart[first], apart[first + 1 :]).sum(1)
        second = int(costs.argmin())
        if costs[second] < best:
            best, medoids = float(costs[second]), (first, first + 1 + second)
    return Groups(mean, spread, scaled[list(medoids)])


def log_rank(groups: np.ndarray, days: np.ndarray, died: np.ndarray) -> float:
    """The p-value of the log-rank test, two-sided (scipy); 1 where a group is empty or nobody died.

    Args:
        groups: 0 or 1 for each patient.
        days: until death, or until the patient was last seen.
        died: False where the patient was alive then.
    """
    if len(set(groups.tolist())) < 2 or not died.any():
        return 1.0
    first, second = (
        CensoredData(uncensored=days[died & (groups == g)], right=days[~died & (groups == g)]) for g in (0, 1)
    )
    p = float(logrank(first, second).pvalue)
    return p if math.isfinite(p) else 1.0


def significance_loss(p: float, tau: float = TAU) -> float:
    """Lp, here log(p / tau): below 0 for p < tau, and smaller the smaller p is.

    Equation 2 prints log(tau / p), which would grow as p falls, and lets it be minimised; the text beside it has p
    below tau rewarded and p above it punished, and that is what is done here.
    """
    return math.log(max(p, 1e-300) / tau)

"""How sure a mean AUC, or the difference of two, is on other cases of other institutions.

An AUC belongs to a set of cases and not to a case, so nothing can be averaged over cases; the cases themselves are
drawn anew, the same for all models, in two stages as in `paired`: institutions first, then cases within each (Davison
and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Within an institution the cases of each label
are drawn on their own, as in `classification.intervals`, so that an institution keeps its share of 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedbrats.metrics.classification import auc, weighted_auc
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.paired import DRAWS, TAIL

ENOUGH = 0.95  # of the draws must have an AUC, or what is left is chosen and no sample


def contrast(scores: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """Sum of weight times AUC over models, each over the cases that it has scored; NaN where one has no AUC.

    Args:
        scores: [models, cases], NaN where a model has not scored a case.
        weights: [models]; 1/k for the mean of k models, 1/k and -1/m for the difference of two means.
        labels: [cases], 0 or 1.
    """
    there = ~np.isnan(scores)
    return float(sum(w * auc(s[k], labels[k]) for w, s, k in zip(weights, scores, there, strict=True)))


def contrast_interval(
    scores: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[object],
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of `contrast` over cases and institutions, by the bootstrap above.

    NaN for fewer than two institutions, which cannot say how others differ; for fewer than `MIN_CASES` cases, or two of
    a label; and where more than one draw of twenty has no AUC because institutions of one label were drawn alone.

    Args:
        scores: [models, cases], NaN where a model has not scored a case.
        weights: [models].
        labels: [cases].
        groups: the institution of each case.
        draws: of the bootstrap.
        seed: of the draws.
    """
    names, member = np.unique(np.asarray(groups, str), return_inverse=True)
    fewest = min(np.count_nonzero(labels == value) for value in (0, 1))
    if len(names) < 2 or len(labels) < MIN_CASES or fewest < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    often = np.zeros((draws, len(labels)))
    for k in range(len(names)):
        for value in (0, 1):
            here = np.flatnonzero((member == k) & (labels == value))
            if len(here):  # an institution drawn twice has its cases drawn twice
                often[:, here] = rng.multinomial(drawn[:, k] * len(here), np.full(len(here), 1 / len(here)))
    total = np.zeros(draws)
    for weight, mine in zip(weights, scores, strict=True):
        there = ~np.isnan(mine)
        total += weight * weighted_auc(mine[there], labels[there], often[:, there])
    known = total[~np.isnan(total)]
    if len(known) < ENOUGH * draws:
        return math.nan, math.nan
    low, high = np.quantile(known, [TAIL, 1 - TAIL])
    return float(low), float(high)

"""Whether one method is better than another on the same cases: intervals, tests, effect sizes and ranks.

- The mean difference with a 95 % interval by a paired bootstrap in two stages: institutions are drawn first, then cases
  within each (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8), as cases of one
  institution resemble each other.
- Wilcoxon's signed rank test (scipy), which takes cases for independent, with Holm's correction for several tests
  (Scandinavian Journal of Statistics, 1979), and the matched-pairs rank-biserial correlation (Kerby, 2014) as the size.
- The ranking of BraTS and FeTS (Bakas et al., arXiv 1811.02629, section 3; Zenk et al., Nature Communications 2025):
  methods are ranked for every case, region and metric; a case's ranks are averaged, and then those of all cases. The
  permutation test of two methods swaps their ranks within cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DRAWS = 10_000  # of the bootstrap and of the permutation test
TAIL = 0.025


def bootstrap_interval(
    differences: np.ndarray, groups: Sequence[object], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean difference over cases [cases], drawn by institution, then within it.

    NaN for fewer than two institutions, which cannot say how others differ, and for fewer than two cases.
    """
    names, member = np.unique(np.asarray(groups, str), return_inverse=True)
    if len(names) < 2:
        return math.nan, math.nan
    rng, own = (
        np.random.default_rng(seed),
        [np.asarray(differences, float)[member == k] for k in range(len(names))],
    )
    total, count = np.zeros(draws), np.zeros(draws)
    for _ in names:
        chosen = rng.integers(len(names), size=draws)
        for k, values in enumerate(own):
            here = np.flatnonzero(chosen == k)
            total[here] += values[rng.integers(len(values), size=(len(here), len(values)))].sum(axis=1)
            count[here] += len(values)
    low, high = np.quantile(total / count, [TAIL, 1 - TAIL])
    return float(low), float(high)


def signed_rank(differences: np.ndarray) -> tuple[float, float]:
    """p value (two-sided) of Wilcoxon's signed rank test of paired differences [cases], and the rank-biserial size.

    Cases without a difference are left out, as Wilcoxon did; where none is left, p is 1 and the size 0. The size is
    (sum of the ranks of positive differences - that of negative ones) / sum of all, between -1 and 1.
    """
    from scipy.stats import rankdata, wilcoxon

    left = np.asarray(differences, float)
    left = left[left != 0]
    if not len(left):
        return 1.0, 0.0
    ranks = rankdata(np.abs(left))
    size = float((ranks * np.sign(left)).sum() / ranks.sum())
    return float(wilcoxon(left).pvalue), size


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for so many tests by Holm's step-down procedure, in the same order; NaN stays and is none."""
    values = np.asarray(p_values, float)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    adjusted, largest = values.copy(), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * values[index]))
        adjusted[index] = largest
    return adjusted.tolist()


def case_ranks(scores: np.ndarray, lower_is_better: Sequence[bool]) -> np.ndarray:
    """Mean rank [methods, cases] of each method in each case; 1 is best, equal scores share their mean rank.

    Args:
        scores: [methods, cases, criteria], finite; a criterion is a region by a metric.
        lower_is_better: of every criterion.
    """
    from scipy.stats import rankdata

    signs = np.where(np.asarray(lower_is_better), 1.0, -1.0)
    return np.asarray(rankdata(scores * signs, axis=0)).mean(axis=2)


def permutation_test(one: np.ndarray, other: np.ndarray, draws: int = DRAWS, seed: int = 0) -> float:
    """One-sided p value that `one` has the lower mean rank [cases] than `other` by chance.

    The ranks of the two are swapped within cases: in all ways where there are at most `draws`, else at random
    (scipy.stats.permutation_test of paired samples, which then counts what was seen as one of them).
    """
    from scipy import stats

    def ahead(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(np.mean(second - first, axis=axis))

    found = stats.permutation_test(
        (np.asarray(one, float), np.asarray(other, float)),
        ahead,
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=1000,
        alternative="greater",
        random_state=np.random.default_rng(seed),
    )
    return float(found.pvalue)

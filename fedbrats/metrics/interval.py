"""95 % intervals of a mean over few cases, of scores whose range is known. Nothing is drawn, so no seed moves them.

One case of twenty that fails costs a mean HD95 19 mm, and most tests of ten cases contain no such case. An interval
made of the spread of the cases seen (Student's t, percentile bootstrap, BCa) then covers the mean far less often than
it says (`coverage.py`). So the ends of the range count here, and the wider of two intervals is taken at
each end:

- over cases: Gaffke's, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
  variable" (Mathematical Methods of Statistics, 2005), in the form of Learned-Miller and Thomas (arXiv 1905.06208). It
  asks nothing of the distribution but its range. That it covers is conjectured and has not been refuted; for scores
  that are 0 or 1 it is the interval of Clopper and Pearson, which does.
- over institutions, where there are several: Student's t with the cluster-robust standard error CR2 of Bell and
  McCaffrey (Survey Methodology, 2002) and the degrees of freedom of Imbens and Kolesar, "Robust standard errors in
  small samples: some practical advice" (Review of Economics and Statistics, 2016): cases of one institution resemble
  each other, and the next institution is another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

# With fewer, more than half of the range stays open even where all cases agree: 1 - 0.025^(1/n) > 0.5.
MIN_CASES = 6
TAIL = 0.025  # of either side
INTERVALS = "95 % for the range of the score and over institutions"  # how a summary was made, for its readers
_STEP = 0.1
_NODES = np.exp(np.arange(-28, 28, _STEP))[
    :, None
]  # of the integral, which converges exponentially in their log


def mean_interval(
    values: np.ndarray, ends: tuple[float, float], groups: Sequence[object] | None = None
) -> tuple[float, float]:
    """95 % interval of the mean of which `values` are a sample.

    Args:
        values: one per case, finite; their order does not matter.
        ends: smallest and largest value that there can be. A value beyond them moves them.
        groups: the institution of each case, where the mean is one over institutions; None within one.

    Returns:
        Its ends, within `ends`; NaN for fewer than `MIN_CASES` cases.
    """
    if len(values) < MIN_CASES:
        return math.nan, math.nan
    points = np.sort(np.asarray(values, float))
    least, most = min(ends[0], float(points[0])), max(ends[1], float(points[-1]))
    low = _weighted_quantile(np.append(points, least), TAIL)
    high = _weighted_quantile(np.append(points, most), 1 - TAIL)
    if groups is not None:
        there, half = float(points.mean()), _half_over_groups(np.asarray(values, float), groups)
        low, high = min(low, max(there - half, least)), max(high, min(there + half, most))
    return low, high


def share_below(points: np.ndarray, level: float) -> float:
    """Probability that a mean of `points` with random weights (Dirichlet, all ones) is at most `level`.

    The weights are E_i / sum(E) with exponential E_i, so it is P(sum E_i (x_i - level) <= 0), by the inversion of the
    characteristic function (Gil-Pelaez 1951, Imhof 1961), exact to about 1e-8.
    """
    distances, counts = np.unique(np.asarray(points, float) - level, return_counts=True)
    if distances[0] >= 0 or distances[-1] <= 0:
        return float(distances[-1] <= 0)
    turned = (_NODES * (distances / np.abs(distances).max())).astype(float)
    angle, shrink = np.arctan(turned) @ counts, np.log1p(turned**2) @ counts
    above = 0.5 + _STEP / math.pi * float(np.sum(np.sin(angle) * np.exp(-shrink / 2)))
    return min(1.0, max(0.0, 1 - above))


def _weighted_quantile(points: np.ndarray, share: float) -> float:
    """The level that a randomly weighted mean of `points` stays below with the probability `share`."""
    least, most = float(points.min()), float(points.max())
    if least == most:
        return least
    from scipy.optimize import brentq  # which every process of a site would take to start

    return float(
        brentq(lambda level: share_below(points, level) - share, least, most, xtol=1e-9 * (most - least))
    )


def _half_over_groups(values: np.ndarray, groups: Sequence[object]) -> float:
    """Half the width of the t interval over `groups`; 0 for a single group, which says nothing of others."""
    _, member, count = np.unique(np.asarray(groups, str), return_inverse=True, return_counts=True)
    if len(count) < 2:
        return 0.0
    weight = count / len(values)
    means = np.bincount(member, values) / count
    raised = weight / np.sqrt(1 - weight)
    variance = float(np.sum((raised * (means - values.mean())) ** 2))
    centred = np.eye(len(weight)) - weight
    freedom = _freedom(raised, centred @ (_spread_of_means(values, means, member, count) * centred).T)
    return float(stdtrit(freedom, 1 - TAIL)) * math.sqrt(variance)


def _spread_of_means(
    values: np.ndarray, means: np.ndarray, member: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Variance of the mean of each group: that between groups, and its share of that within them (both estimated)."""
    within = float(np.sum((values - means[member]) ** 2)) / max(len(values) - len(count), 1)
    between = max(float(means.var(ddof=1) - np.mean(within / count)), 0.0)
    own = between + within / count
    return own if own.any() else np.ones(len(count))


def _freedom(raised: np.ndarray, covariance: np.ndarray) -> float:
    """Satterthwaite's degrees of freedom of a sum of squares with this covariance of its terms."""
    terms = np.outer(raised, raised) * covariance
    return float(np.trace(terms) ** 2 / np.sum(terms**2))

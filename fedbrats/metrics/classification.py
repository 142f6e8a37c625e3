"""Scores of a yes-or-no label of whole cases: how well it is told, with intervals, and whether that is chance.

Everywhere `scores` are probabilities of label 1 and `labels` 0 or 1, both [cases].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

from fedbrats.metrics.uncertainty import expected_calibration_error, reliability

THRESHOLD = 0.5  # from which score on a case is called 1
BINS = 10  # of the calibration
DRAWS = 2000  # of the bootstrap
PERMUTATIONS = 10_000
EXACT = 10_000  # as many ways to deal the labels are all looked at
LEVEL = 0.05  # p below which a result is said to differ from chance
TAIL = 0.025


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the share of pairs of a 1 and a 0 in which the 1 has the higher score, ties half.

    It is the Mann-Whitney statistic divided by the number of pairs (Hanley and McNeil, Radiology 1982, section
    "Meaning of the area"). NaN where one of the labels is missing.
    """
    positives = int(np.count_nonzero(labels))
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    ranks = _ranks(scores)
    return float(ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives)


def _ranks(scores: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata  # half a second, which every process of a site would take to start

    ranks: np.ndarray = rankdata(scores)  # ties share their mean rank
    return ranks


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of cases called what they are; NaN without cases."""
    return _share((scores >= THRESHOLD) == (labels == 1))


def sensitivity(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of the cases with label 1 that are called 1; NaN where there are none."""
    return _share(scores[labels == 1] >= THRESHOLD)


def specificity(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of the cases with label 0 that are called 0; NaN where there are none."""
    return _share(scores[labels == 0] < THRESHOLD)


def brier(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of the score from the label (Brier, Monthly Weather Review 1950); NaN without cases.

    0 is perfect; a score of 0.5 for every case has 0.25.
    """
    return float(np.mean((scores - labels) ** 2)) if len(labels) else math.nan


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error over `BINS` bins of equal width (Guo et al., ICML 2017); NaN without cases.

    Of few cases it is large by chance alone, even where every score is right.
    """
    return expected_calibration_error(bins_of(scores, labels)) if len(labels) else math.nan


def bins_of(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Float64 [bins, 3]: cases, sum of their scores, cases with label 1; as `metrics.uncertainty.reliability`."""
    return reliability(np.asarray(scores, float), labels == 1, np.ones(len(labels), bool), BINS)


Score = Callable[[np.ndarray, np.ndarray], float]
SCORES: dict[str, Score] = {
    "auc": auc,
    "accuracy": accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "brier": brier,
    "calibration_error": calibration_error,
}
TITLES = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
}
LOWER = ("brier", "calibration_error")  # are better when lower


def intervals(
    scores: np.ndarray, labels: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of `SCORES` by a bootstrap of the cases, drawn within each label.

    Drawing within the labels keeps their numbers, so every draw has an AUC (Carpenter and Bithell, Statistics in
    Medicine 2000, on resampling within strata). NaN where the score itself is NaN, or a label has fewer than two
    cases: a single one is drawn again and again and would look certain. Labels that few cases tell apart without a
    mistake have an interval of no width; it says no more than that.

    Args:
        scores: of all cases.
        labels: theirs.
        draws: of the bootstrap.
        seed: of the draws.
    """
    groups = [np.flatnonzero(labels == value) for value in (0, 1)]
    if any(len(group) == 1 for group in groups) or not len(labels):
        return dict.fromkeys(SCORES, (math.nan, math.nan))
    rng, often = np.random.default_rng(seed), np.zeros((draws, len(labels)))
    for group in groups:  # how often each case is drawn
        if len(group):
            often[:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=draws)
    return {name: _ends(values) for name, values in weighted(scores, labels, often).items()}


def weighted(scores: np.ndarray, labels: np.ndarray, often: np.ndarray) -> dict[str, np.ndarray]:
    """`SCORES` float64 [draws] of cases that count `often` [draws, cases] times; all draws at once."""
    ones, zeros = labels == 1, labels == 0
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as in the scores themselves

        def mean(values: np.ndarray, among: np.ndarray) -> np.ndarray:
            return np.asarray(often[:, among] @ values[among].astype(float) / often[:, among].sum(axis=1))

        called, everybody = scores >= THRESHOLD, np.ones(len(labels), bool)
        place = np.minimum((scores * BINS).astype(int), BINS - 1)
        off = often @ (np.eye(BINS)[place] * (scores - labels)[:, None])  # [draws, bins]
        return {
            "auc": weighted_auc(scores, labels, often),
            "accuracy": mean(called == ones, everybody),
            "sensitivity": mean(called, ones),
            "specificity": mean(~called, zeros),
            "brier": mean((scores - labels) ** 2, everybody),
            "calibration_error": np.abs(off).sum(axis=1) / often.sum(axis=1),
        }


def weighted_auc(scores: np.ndarray, labels: np.ndarray, often: np.ndarray) -> np.ndarray:
    """`auc` [draws] of cases that count `often` [draws, cases] times; NaN in draws without one of the labels."""
    ones, zeros = labels == 1, labels == 0
    won = np.heaviside(scores[ones][:, None] - scores[zeros][None, :], 0.5)
    pairs = often[:, ones].sum(axis=1) * often[:, zeros].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(((often[:, ones] @ won) * often[:, zeros]).sum(axis=1) / pairs)


def chance(scores: np.ndarray, labels: np.ndarray, draws: int = PERMUTATIONS, seed: int = 0) -> float:
    """p value that an AUC as high comes about by chance: the labels are dealt anew to the cases (permutation test).

    One-sided: only an AUC above 1/2 says that something was learnt. All ways to deal them are looked at where there are
    at most `EXACT`, else `draws` at random, and what was seen counts as one of them (Phipson and Smyth, Statistical
    Applications in Genetics and Molecular Biology 2010). NaN where the AUC is.

    Args:
        scores: of all cases.
        labels: theirs.
        draws: at random.
        seed: of the draws.
    """
    return chance_of_mean(np.asarray(scores, float)[None], labels, draws, seed)


def chance_of_mean(scores: np.ndarray, labels: np.ndarray, draws: int = PERMUTATIONS, seed: int = 0) -> float:
    """`chance` of a mean AUC over several models, such as those of several seeds; of one model it is `chance`.

    A case keeps the label that it is dealt in all models, as their scores of one case resemble each other. Labels are
    dealt among cases that the same models have scored, so that every model keeps its numbers of 1 and 0 (a permutation
    test within strata). NaN where no model has an AUC.

    Args:
        scores: [models, cases], NaN where a model has not scored a case.
        labels: [cases].
        draws: at random.
        seed: of the draws.
    """
    there, worth, models = ~np.isnan(scores), np.zeros(len(labels)), list[int]()
    for model, (mine, known) in enumerate(zip(scores, there, strict=True)):
        positives = int(np.count_nonzero(labels[known]))
        if 0 < positives < known.sum():  # the AUC grows with the ranks of its positives and with nothing else
            worth[known] += _ranks(mine[known]) / (positives * (known.sum() - positives))
            models.append(model)
    if not models:
        return math.nan
    _, member = np.unique(there[models], axis=1, return_inverse=True)
    groups = [np.flatnonzero(member == k) for k in range(int(member.max()) + 1)]
    counts = [int(np.count_nonzero(labels[group])) for group in groups]
    seen = float(worth[labels == 1].sum()) * (1 - 1e-12)  # sums in another order are the same
    if len(groups) == 1 and math.comb(len(labels), counts[0]) <= EXACT:
        ways = combinations(range(len(labels)), counts[0])
        return float(np.mean([worth[list(chosen)].sum() >= seen for chosen in ways]))
    rng, sums = np.random.default_rng(seed), np.zeros(draws)
    for draw in range(draws):
        for group, count in zip(groups, counts, strict=True):
            sums[draw] += worth[group[rng.permutation(len(group))[:count]]].sum()
    return float((1 + np.count_nonzero(sums >= seen)) / (1 + draws))


def _share(hits: np.ndarray) -> float:
    return float(np.mean(hits)) if len(hits) else math.nan


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)

"""The methods of a sweep of classifications against chance and against a reference, and their ranking.

An AUC belongs to a set of cases: there is nothing to be ranked or averaged within a case. So methods are told apart by
a bootstrap of the cases (`metrics.paired_auc`), and ranked within institutions where there are enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.data.sentences import plural
from fedbrats.metrics.classification import LEVEL, chance_of_mean
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.paired import case_ranks, holm, permutation_test
from fedbrats.metrics.paired_auc import contrast, contrast_interval
from fedbrats.report.cells import number
from fedbrats.studies.methods import Method, people_of
from fedbrats.tasks.classification import MAIN, told

CHANCE = "chance"  # an AUC of 1/2
HALF = 0.5
TESTS = (
    *("method", "over", "metric", "seeds", "cases", "positives", "institutions"),
    *("difference", "low", "high", "p", "p_holm", "sentence"),
)
RANKS = ("method", "arm", "place", "rank", "institutions")
KEYS = ["people", "site", "case"]
MIN_SITES = 5  # there are 2^4 ways to swap the ranks of two methods at four, so p would never be below 1/16


@dataclass(frozen=True)
class Answers:
    """What the jobs of one method say of test cases: scores [cases x jobs], NaN where a job has none; labels."""

    scores: pd.DataFrame
    labels: pd.Series

    @property
    def models(self) -> np.ndarray:
        """Scores [jobs, cases]."""
        return self.scores.to_numpy(float).T

    @property
    def weights(self) -> np.ndarray:
        """Of a mean over the jobs."""
        return np.full(self.scores.shape[1], 1 / self.scores.shape[1])

    def of(self, cases: pd.Index) -> Answers:
        """Of these cases only."""
        return Answers(self.scores.loc[cases], self.labels.loc[cases])


def answers_of(method: Method) -> Answers:
    """The scores and labels of a method's test cases, by people (seeds of the data), site and case."""
    parts = [
        job.scores[job.scores["arm"] == method.arm].assign(people=people_of(job)).set_index(KEYS)
        for job in method.jobs
    ]
    scores = pd.concat([part["score"] for part in parts], axis=1, keys=range(len(parts))).sort_index()
    labels = pd.concat([part["label"] for part in parts]).groupby(level=KEYS).first()
    return Answers(scores, labels.loc[scores.index].astype(int))


def tests(methods: Sequence[Method], reference: Method) -> tuple[pd.DataFrame, list[str]]:
    """Every method against chance and all others against `reference` (`TESTS`); who could not be compared, and why.

    The difference is of mean AUCs over the seeds. Against chance p is of `chance_of_mean`, over all test cases as in a
    run's own report, and p_holm counts the methods; against the reference both are on the cases that both have, and
    have no p.
    """
    answers = {method.name: answers_of(method) for method in methods}
    rows, left = list[dict[str, Any]](), list[str]()
    for method in methods:
        mine = answers[method.name]
        if not len(mine.labels):
            left.append(f"{method.name}: no site has told the score of a case")
            continue
        if math.isnan(contrast(mine.models, mine.weights, mine.labels.to_numpy())):
            left.append(f"{method.name} has no AUC: its test cases have one label only")
            continue
        p = chance_of_mean(mine.models, mine.labels.to_numpy())
        rows.append(_row(method.name, CHANCE, len(method.jobs), mine, HALF) | {"p": p})
    for method in methods if answers[reference.name].labels.nunique() > 1 else ():
        if method is reference or method.name not in {row["method"] for row in rows}:
            continue
        pair, why = _pair(answers[method.name], answers[reference.name], method.name, reference.name)
        left += [why] if why else []
        if pair is not None:
            seeds = min(len(method.jobs), len(reference.jobs))
            rows.append(_row(method.name, reference.name, seeds, pair[0], 0.0, pair[1]))
    frame = pd.DataFrame(rows, columns=list(TESTS))
    frame["p_holm"] = holm(frame["p"].to_numpy(float))
    frame["sentence"] = [sentence(row) for row in frame.to_dict("records")]
    return frame, left


def _pair(one: Answers, other: Answers, who: str, over: str) -> tuple[tuple[Answers, Answers] | None, str]:
    """Both on the cases that both have, and what is to be said of those; None where they cannot be compared."""
    both = one.labels.index.intersection(other.labels.index)
    if not len(both):
        return None, f"{who} has no test case in common with {over}"
    mine, theirs = one.of(both), other.of(both)
    if changed := int((mine.labels != theirs.labels).sum()):
        return None, f"{who}: {plural(changed, 'case')} of {len(both)} have another label than in {over}"
    if any(
        math.isnan(contrast(part.models, part.weights, part.labels.to_numpy())) for part in (mine, theirs)
    ):
        return None, f"{who}: its {plural(len(both), 'case')} in common with {over} have one label only"
    few = len(both) < max(len(one.labels), len(other.labels))
    only = f"{who}: only the {plural(len(both), 'case')} that {over} has been tested on, too"
    return (mine, theirs), only if few else ""


def _row(
    who: str, over: str, seeds: int, mine: Answers, level: float, theirs: Answers | None = None
) -> dict[str, Any]:
    """Numbers of one comparison: mean AUC less `level`, or less that of `theirs` on the same cases."""
    scores, weights, labels = mine.models, mine.weights, mine.labels.to_numpy()
    if theirs is not None:
        scores = np.concatenate([scores, theirs.models])
        weights = np.concatenate([weights, -theirs.weights])
    sites = mine.labels.index.get_level_values("site").tolist()
    low, high = contrast_interval(scores, weights, labels, sites)
    counts = {"cases": len(labels), "positives": int(labels.sum()), "institutions": len(set(sites))}
    found = {"method": who, "over": over, "metric": MAIN, "seeds": seeds, **counts}
    difference = contrast(scores, weights, labels) - level
    return found | {"difference": difference, "low": low - level, "high": high - level, "p": math.nan}


def sentence(row: Mapping[str, Any]) -> str:
    """What a comparison allows to say, and no more."""
    who, difference = row["method"], row["difference"]
    where = f"over {plural(row['cases'], 'case')} of {plural(row['institutions'], 'institution')}"
    where += f" and {row['seeds']} seeds" if row["seeds"] > 1 else ""
    unknown = math.isnan(row["low"])
    if row["over"] == CHANCE:
        p = f"permutation test, p {told(row['p_holm'])} after Holm"
        interval = "" if unknown else f"; 95 % interval {_both(row, HALF)}"
        start = f"{who}: AUC {number(HALF + difference, 3)} {where}"
        if row["p_holm"] < LEVEL:
            return f"{start} is above chance ({p}{interval})."
        return f"{start} is not to be told from chance, 0.5 ({p}{interval})."
    more = "higher" if difference > 0 else "lower"
    start = f"{who}: AUC {number(abs(difference), 3)} {more} than that of {row['over']} {where}"
    if unknown:
        return f"{start}; so few cases or institutions cannot say whether others would have it."
    if row["low"] <= 0 <= row["high"]:
        end = "the data do not tell them apart, which does not show that they are equal"
    else:
        end = f"{who} is {'better' if difference > 0 else 'worse'} on cases and institutions like these"
    return f"{start} (95 % interval {_both(row, 0.0)}): {end}."


def _both(row: Mapping[str, Any], level: float) -> str:
    return f"{number(row['low'] + level, 3)} to {number(row['high'] + level, 3)}"


def ranking(methods: Sequence[Method], means: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The methods by their mean rank over institutions, each by its AUC there.

    Args:
        methods: that are ranked.
        means: of `studies.methods.institution_means`.

    Returns:
        Columns `RANKS`, best first; [method x method] one-sided p of the permutation test that the row is the better by
        chance; and why there is no ranking, "" where there is one. Only institutions count that have an AUC of
        `MIN_CASES` cases by every method, and there must be `MIN_SITES` of them.
    """
    empty = pd.DataFrame(columns=list(RANKS)), pd.DataFrame()
    if len(methods) < 2:
        return *empty, "there is one method only"
    enough = means[means["n"] >= MIN_CASES]
    wide = enough.pivot_table(index="site", columns="method", values=MAIN, sort=False)
    wide = wide.reindex(columns=[method.name for method in methods]).dropna()
    if len(wide) < MIN_SITES:
        return (
            *empty,
            f"an AUC is of a set of cases, so methods are ranked within institutions, and {len(wide)} of them have "
            f"one of {MIN_CASES} cases or more by every method; it takes {MIN_SITES}",
        )
    ranks = case_ranks(wide.to_numpy(float).T[:, :, None], [False])
    order = np.argsort(ranks.mean(axis=1), kind="stable")
    rows = [
        dict(zip(RANKS, (methods[k].name, methods[k].arm, place, ranks[k].mean(), len(wide)), strict=True))
        for place, k in enumerate(order, 1)
    ]
    p = [[math.nan if i == j else permutation_test(ranks[i], ranks[j]) for j in order] for i in order]
    names = [methods[k].name for k in order]
    return pd.DataFrame(rows, columns=list(RANKS)), pd.DataFrame(p, names, names), ""

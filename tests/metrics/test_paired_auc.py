"""Mean AUCs, their differences and intervals, against counting pairs case by case."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fedbrats.metrics.classification import chance, chance_of_mean, weighted_auc
from fedbrats.metrics.paired_auc import contrast, contrast_interval


def counted(scores: np.ndarray, labels: np.ndarray) -> float:
    """An AUC by looking at every pair."""
    pairs = list(product(scores[labels == 1], scores[labels == 0]))
    return sum(1.0 if one > zero else 0.5 if one == zero else 0.0 for one, zero in pairs) / len(pairs)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores of three models, with ties, labels and institutions of 40 cases."""
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 2
    scores = np.round(np.clip(0.3 * labels + 0.5 * rng.random((3, 40)), 0, 1), 1)
    return scores, labels, [f"site {k // 2 % 4}" for k in range(40)]


def test_contrast_is_by_pairs(drawn: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    scores, labels, _ = drawn
    mine = [counted(row, labels) for row in scores]
    assert contrast(scores, np.array([0.5, 0.5, -1]), labels) == pytest.approx(
        (mine[0] + mine[1]) / 2 - mine[2]
    )
    u = mannwhitneyu(scores[0][labels == 1], scores[0][labels == 0]).statistic
    assert mine[0] == pytest.approx(u / 400)
    scores[2, :10] = np.nan  # the third has not scored these
    assert contrast(scores, np.array([0, 0, 1.0]), labels) == pytest.approx(
        counted(scores[2, 10:], labels[10:])
    )


def test_a_case_drawn_twice_is_two_cases(drawn: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    scores, labels, _ = drawn
    often = np.random.default_rng(0).integers(0, 4, (5, 40))
    again = [counted(np.repeat(scores[0], row), np.repeat(labels, row)) for row in often]
    assert weighted_auc(scores[0], labels, often) == pytest.approx(again)


def test_interval_is_that_of_drawing_institutions_then_cases(
    drawn: tuple[np.ndarray, np.ndarray, list[str]],
) -> None:
    scores, labels, sites = drawn
    weights = np.array([0.5, 0.5, -1])
    found = contrast_interval(scores, weights, labels, sites)
    rng, names, values = np.random.default_rng(7), sorted(set(sites)), []
    of = {(s, v): [k for k in range(40) if sites[k] == s and labels[k] == v] for s in names for v in (0, 1)}
    for _ in range(1500):  # the same by hand, one draw after the other
        chosen = [
            case
            for name in rng.choice(names, len(names))
            for value in (0, 1)
            for case in rng.choice(of[name, value], len(of[name, value]))
        ]
        values.append(sum(w * counted(row[chosen], labels[chosen]) for w, row in zip(weights, scores)))
    assert found == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)
    assert found[0] < contrast(scores, weights, labels) < found[1]


def test_no_interval_where_nothing_can_be_said() -> None:
    labels, scores = np.array([0, 1] * 4), np.linspace(0, 1, 8)[None]
    one = np.ones(1)
    assert all(map(math.isnan, contrast_interval(scores, one, labels, ["A"] * 8)))  # one institution
    assert all(map(math.isnan, contrast_interval(scores[:, :4], one, labels[:4], ["A", "A", "B", "B"])))
    single = np.array([0] * 7 + [1])
    assert all(map(math.isnan, contrast_interval(scores, one, single, ["A", "B"] * 4)))
    apart = np.array([0] * 4 + [1] * 4)  # half of the draws have one label only
    assert all(map(math.isnan, contrast_interval(scores, one, apart, ["A"] * 4 + ["B"] * 4)))
    assert not any(map(math.isnan, contrast_interval(scores, one, labels, ["A"] * 4 + ["B"] * 4)))


def test_models_without_a_difference_have_none_in_any_draw(
    drawn: tuple[np.ndarray, np.ndarray, list[str]],
) -> None:
    scores, labels, sites = drawn
    same = np.stack([scores[0], scores[0]])
    assert contrast_interval(same, np.array([1.0, -1.0]), labels, sites) == (0, 0)


def test_chance_of_one_model_is_that_of_its_report(
    drawn: tuple[np.ndarray, np.ndarray, list[str]],
) -> None:
    scores, labels, _ = drawn
    assert chance_of_mean(scores[:1], labels) == chance(scores[0], labels)
    assert chance_of_mean(scores[[0, 0]], labels) == chance(scores[0], labels)  # a copy is no evidence
    exact = mannwhitneyu([3.0, 4.0, 6.0], [1.0, 2.0, 5.0], alternative="greater", method="exact").pvalue
    assert chance(np.array([3.0, 4, 6, 1, 2, 5]), np.array([1, 1, 1, 0, 0, 0])) == pytest.approx(exact)


def test_chance_of_a_mean_over_models_by_dealing_labels_by_hand() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    scores = np.array([[0.9, 0.4, 0.6, 0.5, 0.1, 0.2, 0.3], [0.2, 0.8, 0.7, 0.6, 0.3, 0.1, 0.9]])
    every = [np.array(way) for way in product((0, 1), repeat=7) if sum(way) == 3]
    means = [np.mean([counted(row, way) for row in scores]) for way in every]
    seen = np.mean([counted(row, labels) for row in scores])
    assert len(every) == 35
    assert chance_of_mean(scores, labels) == pytest.approx(np.mean(np.array(means) >= seen - 1e-9))


def test_labels_are_dealt_among_cases_of_the_same_models() -> None:
    """Two models of three cases each, all told apart: each is one of 3 ways, so both are one of 9."""
    scores, gone = np.full((2, 6), np.nan), np.array([1, 0, 0, 1, 0, 0])
    scores[0, :3] = scores[1, 3:] = [0.9, 0.2, 0.1]
    assert chance_of_mean(scores, gone) == pytest.approx(1 / 9, abs=0.02)
    scores[1] = np.nan  # a model without an AUC counts for nothing
    assert chance_of_mean(scores[:, :3], gone[:3]) == pytest.approx(1 / 3)

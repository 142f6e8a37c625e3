"""What is told of a classification where single cases stay, counted by hand, and what of it holds over all sites."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedbrats.metrics.classification import SCORES
from fedbrats.tasks.classification import NUMBERS, by_institution, verdict
from fedbrats.tasks.told import FAILED, KEPT, OF_CLASSES, P_CHANCE, POSITIVES, told_scores

LABELS = [1, 1, 1, 0, 0, 0]
SIX = [0.9, 0.8, 0.4, 0.1, 0.2, 0.6]


def rows(
    scores: list[float] = SIX, labels: list[int] = LABELS, site: str = "A", failed: int = 0
) -> list[dict[str, Any]]:
    pairs = enumerate(zip(scores, labels, strict=True))
    return [
        {"arm": "federated", "site": site, "case": f"{site}#{i}", "score": s, "label": y}
        | {"status": "failed: x" if i < failed else "ok"}
        for i, (s, y) in pairs
    ]


def told(found: list[dict[str, Any]]) -> dict[str, tuple[float, int]]:
    return {row["metric"]: (row["value"], row["cases"]) for row in found}


def test_every_number_counted_by_hand_with_the_cases_behind_it() -> None:
    found = told(told_scores(rows(), 3))
    assert found.keys() == {*SCORES, P_CHANCE, POSITIVES, FAILED}
    assert found["auc"] == (pytest.approx(8 / 9), 6)  # 0.4 loses to 0.6 alone
    assert found["accuracy"] == (pytest.approx(4 / 6), 6)
    assert found["sensitivity"] == (pytest.approx(2 / 3), 3)
    assert found["specificity"] == (pytest.approx(2 / 3), 3)
    assert found["brier"] == (pytest.approx(0.82 / 6), 6)
    assert found["p_chance"] == (pytest.approx(2 / 20), 6)  # of 20 ways to deal them, two have such an AUC
    assert (found["positives"], found["failed"]) == ((3, 6), (0, 6))


@pytest.mark.parametrize("labels", [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [0] * 6, [1] * 6])
def test_with_few_cases_of_either_label_nothing_is_told_of_the_other_either(labels: list[int]) -> None:
    found = told(told_scores(rows(labels=labels), 3))
    assert found.keys() == {"accuracy", "brier", "calibration_error", FAILED}
    assert {cases for _, cases in found.values()} == {6}


def test_of_few_cases_nothing_is_told() -> None:
    assert told_scores(rows(), 7) == []
    assert told_scores([], 1) == []


@pytest.mark.parametrize(("failed", "says"), [(0, True), (1, False), (3, True), (5, False), (6, True)])
def test_how_many_failed_is_told_of_enough_or_of_none(failed: int, says: bool) -> None:
    assert (FAILED in told(told_scores(rows(failed=failed), 3))) == says


def test_what_may_not_be_told_is_not_and_p_goes_with_the_auc() -> None:
    assert told(told_scores(rows(), 3, ["brier"])).keys() == {
        "brier",
        FAILED,
    }  # positives say something of labels
    assert told(told_scores(rows(), 3, ["brier", "sensitivity"])).keys() == {
        *("brier", "sensitivity", POSITIVES, FAILED)
    }


def told_of(*sites: str, least: int = 3, **labels: list[int]) -> pd.DataFrame:
    found = [
        {"arm": "federated", "site": site, **row}
        for site in sites
        for row in told_scores(rows(labels=labels.get(site, LABELS), site=site), least)
    ]
    return pd.DataFrame(found)


def random_rows(site: str, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(site) + count)
    return rows([float(s) for s in rng.random(count)], [i % 3 % 2 for i in range(count)], site)


def test_a_site_that_keeps_its_cases_has_the_row_that_its_cases_would_have_without_intervals() -> None:
    here, there = random_rows("A", 30), random_rows("B", 20)
    aggregates = pd.DataFrame([{"arm": "federated", "site": "B", **row} for row in told_scores(there, 5)])
    whole = by_institution(pd.DataFrame(here + there)).set_index("site")
    found = by_institution(pd.DataFrame(here), aggregates).set_index("site")
    assert list(found.index) == ["all", "A", "B"]
    pd.testing.assert_series_equal(found.loc["A"], whole.loc["A"])
    known = [name for name in NUMBERS if not name.endswith(("_low", "_high"))]
    assert found.loc["B", known].tolist() == whole.loc["B", known].tolist()  # to the last bit
    assert all(math.isnan(found.loc["B", name]) for name in NUMBERS if name not in known)
    assert found.loc["B", KEPT] == "single cases, intervals stay at the site"


def test_over_all_is_put_together_what_can_be_and_no_auc_is_averaged() -> None:
    here, there = random_rows("A", 30), random_rows("B", 20)
    aggregates = pd.DataFrame([{"arm": "federated", "site": "B", **row} for row in told_scores(there, 5)])
    whole = by_institution(pd.DataFrame(here + there)).iloc[0]
    found = by_institution(pd.DataFrame(here), aggregates).iloc[0]
    for name in ("n", "positives", "failed", "accuracy", "sensitivity", "specificity", "brier"):
        assert found[name] == pytest.approx(whole[name], rel=1e-12), name
    for name in ("auc", "auc_low", "calibration_error", "p_chance", "brier_low"):
        assert math.isnan(found[name]), name
    said = (
        "auc, calibration_error, p_chance cannot be put together from those of institutions, and single cases stay "
        "at B"
    )
    assert found[KEPT] == said
    assert verdict(found) == f"No AUC of all test cases: {said}."


def test_over_all_nothing_is_said_for_a_site_that_keeps_its_own() -> None:
    table = by_institution(pd.DataFrame(rows(site="A")), told_of("B", "C", B=[1, 0, 0, 0, 0, 0])).set_index(
        "site"
    )
    whole = table.loc["all"]
    assert whole["n"] == 18
    assert whole["brier"] == pytest.approx(table.loc[["A", "B", "C"], "brier"].mean())
    assert all(math.isnan(whole[name]) for name in ("positives", *OF_CLASSES))
    assert whole[KEPT].endswith("stay at B, C; sensitivity, specificity, positives stay at some of them")
    stays = "single cases, intervals, auc, sensitivity, specificity, p_chance, positives stay at the site"
    assert table.loc["B", KEPT] == stays


def test_a_site_that_did_not_answer_is_counted_and_in_no_mean() -> None:
    lost = pd.DataFrame(rows(site="A")).assign(
        score=np.nan, label=np.nan, status="failed: the site did not answer"
    )
    table = by_institution(lost, told_of("B")).set_index("site")
    assert table.loc["all", ["n", "failed", "positives"]].tolist() == [12, 6, 3]
    assert table.loc["all", "accuracy"] == pytest.approx(4 / 6)


def test_of_one_site_alone_its_own_auc_is_that_of_all() -> None:
    empty = pd.DataFrame(columns=["arm", "site", "case", "score", "label", "status"])
    table = by_institution(empty, told_of("B"))
    assert table["auc"].tolist() == [pytest.approx(8 / 9)] * 2
    assert verdict(table.iloc[0]).startswith("AUC 0.889 is not to be told from chance")

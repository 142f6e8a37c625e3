"""Results of a classification by institution, and the sentence that says whether they are chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fedbrats.tasks.classification import (
    CLASSIFICATION,
    LABEL,
    by_institution,
    failed_score,
    local_at_home,
    loss_of,
    verdict,
)


def cases(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    """Rows of (arm, site, score, label)."""
    frame = pd.DataFrame(rows, columns=["arm", "site", "score", "label"])
    status = np.where(frame["score"].isna(), "failed: the site did not answer", "ok")
    return frame.assign(case=[f"c{i}" for i in range(len(rows))], status=status)


PERFECT = [("federated", site, 0.9 if label else 0.1, label) for site in "AB" for label in (0, 1) * 4]


def test_rows_of_all_and_of_each_institution() -> None:
    table = by_institution(cases(*PERFECT, ("federated", "C", 0.4, 1.0))).set_index("site")
    assert list(table.index) == ["all", "A", "B", "C"]
    assert table["n"].tolist() == [17, 8, 8, 1]
    assert table["positives"].tolist() == [9, 4, 4, 1]
    # Of 9 x 8 pairs the case of C loses none against 0.1.
    assert table["auc"].tolist()[:3] == [1.0, 1.0, 1.0]
    assert math.isnan(table.loc["C", "auc"])
    assert math.isnan(table.loc["C", "p_chance"])
    assert table.loc["all", "accuracy"] == pytest.approx(16 / 17)
    assert table.loc["A", "p_chance"] == pytest.approx(1 / 70)  # one of the 8 over 4 ways
    assert table.loc["A", "brier"] == pytest.approx(0.01)


def test_a_case_without_a_score_is_counted_and_in_no_score() -> None:
    lost = cases(*PERFECT, ("federated", "C", np.nan, np.nan))
    table = by_institution(lost).set_index("site")
    assert table.loc["all", ["n", "failed", "auc"]].tolist() == [17, 1, 1.0]
    assert table.loc["C", ["n", "failed", "positives"]].tolist() == [1, 1, 0]
    assert math.isnan(table.loc["C", "accuracy"])


def test_order_of_rows_is_nothing() -> None:
    rng = np.random.default_rng(0)
    frame = cases(*(("federated", "AB"[i % 2], float(rng.random()), float(i // 2 % 2)) for i in range(30)))
    one, other = by_institution(frame), by_institution(frame.iloc[::-1])
    pd.testing.assert_frame_equal(one, other)


def test_local_models_count_at_home_only() -> None:
    frame = cases(*((arm, site, 0.5, 1.0) for arm in ("pooled", "local:A", "local:B") for site in "ABC"))
    kept = local_at_home(frame)
    assert list(zip(kept["arm"], kept["site"], strict=True)) == [
        *(("pooled", site) for site in "ABC"),
        *(("local", site) for site in "AB"),
    ]


@pytest.mark.parametrize(
    ("auc", "p", "words"),
    [
        (0.62, 0.21, "AUC 0.620 is not to be told from chance, 0.5 (permutation test, p = 0.210)."),
        (0.62, 0.05, "AUC 0.620 is not to be told from chance, 0.5 (permutation test, p = 0.050)."),
        (0.7, 0.049, "AUC 0.700 is above chance (permutation test, p = 0.049)."),
        (0.9, 0.0001, "AUC 0.900 is above chance (permutation test, p = < 0.001)."),
        (math.nan, math.nan, "No AUC: the test cases have one label only."),
    ],
)
def test_the_sentence_says_plainly_what_is_chance(auc: float, p: float, words: str) -> None:
    assert verdict({"auc": auc, "p_chance": p}) == words.replace("= <", "<")


def test_what_a_model_is_worth() -> None:
    assert CLASSIFICATION.worth({LABEL: 0.25}) == 0.75  # a smaller Brier score is better
    assert CLASSIFICATION.reply_key(LABEL) == "brier-label"
    assert CLASSIFICATION.round_columns({LABEL: 0.25}) == {"brier": 0.25}
    assert (loss_of(0.8, 1), loss_of(0.8, 0)) == (pytest.approx(0.04), pytest.approx(0.64))
    assert [loss_of(failed_score(label), label) for label in (0, 1)] == [1.0, 1.0]  # as wrong as can be

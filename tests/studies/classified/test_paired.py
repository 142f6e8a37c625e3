"""Methods that classify against chance and against each other, by counting pairs; and their ranking."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedbrats.metrics.classification import chance
from fedbrats.metrics.paired import holm
from fedbrats.studies.classified.paired import CHANCE, ranking, sentence
from fedbrats.studies.classified.paired import tests as compared
from tests.studies.classified.made import counted, method, rows_of

GOOD, BAD = [rows_of("federated", seed, 0.7) for seed in (1, 2)], rows_of("federated", 3, 0.0)


def auc_of(rows: list[dict]) -> float:
    return counted([row["score"] for row in rows], [row["label"] for row in rows])


def test_against_chance_and_against_the_reference() -> None:
    methods = [method("FedAvg", *GOOD), method("Krum", BAD)]
    found, left = compared(methods, methods[0])
    assert left == []
    assert list(zip(found["method"], found["over"])) == [
        *(("FedAvg", CHANCE), ("Krum", CHANCE)),
        ("Krum", "FedAvg"),
    ]
    mean = np.mean([auc_of(rows) for rows in GOOD])
    assert found["difference"].tolist() == pytest.approx(
        [mean - 0.5, auc_of(BAD) - 0.5, auc_of(BAD) - mean], abs=1e-12
    )
    assert found[["cases", "positives", "institutions"]].drop_duplicates().to_numpy().tolist() == [
        [24, 12, 3]
    ]
    assert found["seeds"].tolist() == [2, 1, 1]
    p = chance(np.array([row["score"] for row in BAD]), np.array([row["label"] for row in BAD]))
    assert found["p"][1] == p  # of one seed it is what the run's own report says
    assert found["p_holm"][:2].tolist() == holm(found["p"][:2].to_numpy())
    assert np.isnan(found["p"][2])
    assert (found["low"] <= found["difference"]).all()
    assert (found["difference"] <= found["high"]).all()
    assert "FedAvg: AUC" in found["sentence"][0]
    assert "is above chance" in found["sentence"][0]
    assert "is not to be told from chance, 0.5" in found["sentence"][1]
    assert "Krum is worse on cases and institutions like these" in found["sentence"][2]


def test_only_cases_of_both_and_with_the_same_label_are_compared() -> None:
    few = [row for row in GOOD[0] if row["site"] != "TCIA02"]
    other = [{**row, "label": 1 - row["label"]} for row in GOOD[0]]
    strange = [{**row, "case": f"other {row['case']}"} for row in GOOD[0]]
    one = [{**row, "label": 1} for row in GOOD[0]]
    names = {"few": few, "other": other, "strange": strange, "one": one}
    methods = [method("FedAvg", GOOD[0]), *(method(name, rows) for name, rows in names.items())]
    found, left = compared(methods, methods[0])
    assert found.loc[found["over"] != CHANCE, ["method", "cases", "difference"]].to_numpy().tolist() == [
        ["few", 16, 0.0]
    ]
    assert left == [
        "one has no AUC: its test cases have one label only",
        "few: only the 16 cases that FedAvg has been tested on, too",
        "other: 24 cases of 24 have another label than in FedAvg",
        "strange has no test case in common with FedAvg",
    ]


def test_other_people_are_other_cases() -> None:
    again = method("FedAvg", *GOOD, **{"data.phantom.seed": 1})
    again.jobs[1].settings["data.phantom.seed"] = 2
    found, _ = compared([again], again)
    assert found["cases"].tolist() == [48]
    assert found["difference"].tolist() == pytest.approx([np.mean([auc_of(rows) for rows in GOOD]) - 0.5])


def row(difference: float, low: float, high: float, **more: object) -> dict:
    counts = {"seeds": 1, "cases": 20, "positives": 10, "institutions": 3}
    numbers = {"difference": difference, "low": low, "high": high, "p_holm": 0.2}
    return {"method": "A", "over": "B", **counts, **numbers, **more}


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (
            row(0.1, 0.02, 0.2),
            "A: AUC 0.100 higher than that of B over 20 cases of 3 institutions (95 % interval",
        ),
        (row(0.1, 0.02, 0.2), "0.020 to 0.200): A is better on cases and institutions like these."),
        (row(-0.1, -0.2, -0.01, seeds=3), "and 3 seeds (95 % interval -0.200 to -0.010): A is worse on"),
        (row(0.1, -0.1, 0.2), "the data do not tell them apart, which does not show that they are equal."),
        (row(0.1, np.nan, np.nan, institutions=1), "so few cases or institutions cannot say whether others"),
        (
            row(0.1, 0.0, 0.2, over=CHANCE),
            "not to be told from chance, 0.5 (permutation test, p = 0.200 after Holm",
        ),
        (row(0.1, 0.0, 0.2, over=CHANCE), "; 95 % interval 0.500 to 0.700)."),
        (
            row(0.4, np.nan, np.nan, over=CHANCE, p_holm=0.0001),
            "is above chance (permutation test, p < 0.001 after",
        ),
    ],
)
def test_a_sentence_says_what_the_numbers_allow(numbers: dict, said: str) -> None:
    assert said in sentence(numbers)


def means(aucs: dict[str, list[float]], n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": name, "site": f"site {k}", "n": n, "auc": value}
            for name, values in aucs.items()
            for k, value in enumerate(values)
        ]
    )


def test_ranks_are_within_institutions() -> None:
    methods = [method(name, BAD) for name in ("worse", "better")]
    table = means({"worse": [0.5, 0.5, 0.5, 0.5, 0.9, 0.5], "better": [0.7, 0.6, 0.8, 0.6, 0.8, 0.5]})
    ranks, p, why = ranking(methods, table)
    assert why == ""
    assert ranks[["method", "place", "institutions"]].to_numpy().tolist() == [
        ["better", 1, 6],
        ["worse", 2, 6],
    ]
    assert ranks["rank"].tolist() == pytest.approx([(4 + 2 + 1.5) / 6, (8 + 1 + 1.5) / 6])
    # 5 institutions count; one of the 32 ways has all five ahead, five have four.
    assert p.loc["better", "worse"] == pytest.approx(6 / 32)


def test_no_ranking_of_few_institutions_or_of_few_cases() -> None:
    methods = [method(name, BAD) for name in "AB"]
    four = ranking(methods, means({"A": [0.5] * 4, "B": [0.6] * 4}))
    small = ranking(methods, means({"A": [0.5] * 6, "B": [0.6] * 6}, n=5))
    gaps = ranking(methods, means({"A": [0.5] * 6, "B": [0.6, 0.6, 0.6, 0.6, np.nan, np.nan]}))
    for (ranks, p, why), count in ((four, 4), (small, 0), (gaps, 4)):
        assert not len(ranks)
        assert not len(p)
        assert f"{count} of them have one of 6 cases or more by every method; it takes 5" in why
    assert ranking(methods[:1], means({"A": [0.5] * 6}))[2] == "there is one method only"

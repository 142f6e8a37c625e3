"""What may be said of two methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from fedbrats.metrics.paired import bootstrap_interval, holm
from fedbrats.metrics.table import BY_NAME
from fedbrats.runs.reading import RunFolderError
from fedbrats.studies.jobs import Job
from fedbrats.studies.methods import Method
from fedbrats.studies.paired import ranking, reference_of, sentence
from fedbrats.studies.paired import tests as compared

METRICS = {name: BY_NAME[name].facts("brats2023") for name in ("dice", "hd95")}
DICE = METRICS["dice"]


def method(name: str, dice: np.ndarray, sites: list[str], cases: list[str] | None = None) -> Method:
    cases = cases or [f"case {k}" for k in range(len(dice))]
    rows = [
        {
            "arm": "federated",
            "site": site,
            "case": case,
            "region": "WT",
            "dice": value,
            "hd95": 10 * (1 - value),
        }
        for site, case, value in zip(sites, cases, dice, strict=True)
    ]
    job = Job(name, {}, pd.DataFrame(), "brats2023", "finished", "", True, scores=pd.DataFrame(rows))
    return Method(name, "federated", (job,))


@pytest.fixture
def three() -> list[Method]:
    rng = np.random.default_rng(0)
    sites, plain = [*"AABBCCDDEE"] * 2, rng.uniform(0.5, 0.8, 20)
    better = plain + 0.1 + rng.normal(0, 0.01, 20)
    return [method("FedProx", better, sites), method("FedAvg", plain, sites), method("Krum", plain, sites)]


def test_every_other_method_is_tested_on_the_same_cases(three: list[Method]) -> None:
    reference = reference_of(three)
    assert reference is three[1]
    found, left = compared(three, reference, METRICS)
    assert left == []
    assert list(found["method"]) == ["FedProx", "FedProx", "Krum", "Krum"]
    row = found.iloc[0]
    gain = three[0].jobs[0].scores["dice"].to_numpy() - three[1].jobs[0].scores["dice"].to_numpy()
    assert row["difference"] == pytest.approx(gain.mean())
    assert row["p"] == pytest.approx(wilcoxon(gain).pvalue)
    assert (row["cases"], row["institutions"], row["size"]) == (20, 5, 1.0)
    ordered = np.argsort(
        np.char.add(three[1].jobs[0].scores["site"].to_numpy(str), [f"{k:02}" for k in range(20)])
    )
    assert (row["low"], row["high"]) == pytest.approx(
        bootstrap_interval(gain[ordered], np.array([*"AABBCCDDEE"] * 2)[ordered].tolist()), abs=2e-3
    )
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"].tolist()))
    assert "is better on cases and institutions like these" in row["sentence"]
    assert "WT Dice: FedProx scores 0.1" in row["sentence"]
    assert "is better" in found.iloc[1]["sentence"]  # HD95 is lower, which is better
    assert "lower than FedAvg" in found.iloc[1]["sentence"]
    assert (
        found.iloc[2]["sentence"]
        == "WT Dice: Krum and FedAvg score the same over 20 cases of 5 institutions."
    )


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (0.01, 0.03, 0.01, "is better on cases"),
        (-0.03, -0.01, 0.01, "is worse on cases"),
        (-0.01, 0.03, 0.4, "do not tell them apart, which does not show that they are equal"),
        (-0.01, 0.03, 0.01, "whether it is at other institutions is open"),
        (0.01, 0.03, 0.2, "a hint, no more"),
        (np.nan, np.nan, 0.2, "one institution cannot say whether others would"),
    ],
)
def test_a_sentence_says_no_more_than_the_numbers(low: float, high: float, p: float, said: str) -> None:
    row = {"method": "M", "over": "FedAvg", "region": "WT", "seeds": 3, "cases": 20, "institutions": 4}
    row |= {"low": low, "high": high, "p": p, "p_holm": p, "difference": -0.02 if high < 0 else 0.02}
    assert said in sentence(row, DICE)
    assert "20 cases of 4 institutions and 3 seeds" in sentence(row, DICE)


def test_few_cases_have_no_interval(three: list[Method]) -> None:
    few = [method(m.name, m.jobs[0].scores["dice"].to_numpy()[:5], [*"AABBC"]) for m in three]
    found, _ = compared(few, few[1], METRICS)
    assert found["low"].isna().all()
    assert "fewer than 6 cases" in found.iloc[0]["sentence"]


def test_methods_without_the_same_cases_are_named(three: list[Method]) -> None:
    other = method("Other", np.full(20, 0.5), ["A"] * 20, [f"stranger {k}" for k in range(20)])
    part = method("Part", np.full(6, 0.5), [*"AABBCC"])
    found, left = compared([*three, other, part], three[1], METRICS)
    assert left == [
        "Other has no test case in common with FedAvg",
        "Part: only the 6 cases that FedAvg has been tested on, too",
    ]
    assert set(found.loc[found["method"] == "Part", "cases"]) == {6}
    assert "Other" not in set(found["method"])


def test_the_reference_can_be_chosen(three: list[Method]) -> None:
    assert reference_of(three, "Krum") is three[2]
    assert reference_of(three[::2]) is three[0]  # no FedAvg: the first
    with pytest.raises(RunFolderError, match="no method is called 'X'; there are: FedProx; FedAvg; Krum"):
        reference_of(three, "X")


def test_the_ranking(three: list[Method]) -> None:
    ranks, p = ranking(three, METRICS)
    assert list(ranks["method"]) == ["FedProx", "FedAvg", "Krum"]
    assert ranks["rank"].tolist() == pytest.approx([1.0, 2.5, 2.5])  # the two others are equal in every case
    assert p.loc["FedProx", "Krum"] < 0.001
    assert p.loc["Krum", "FedProx"] == pytest.approx(1, abs=1e-3)
    assert p.loc["FedAvg", "Krum"] == pytest.approx(1)
    assert ranking(three[:1], METRICS)[0].empty

"""Gain of a method over plain jobs: matched by settings, paired by case, two intervals by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedbrats.metrics.interval import mean_interval
from fedbrats.report.compare.figures import gain_figure
from fedbrats.studies.gain import gain_context, gains, t_interval
from fedbrats.studies.jobs import Job
from tests.studies.made_jobs import FEDPROX, job

SHIFT = {"data.phantom.shift": 2.0}


def plain(seed: int, dice: tuple[float, ...] = (0.5, 0.6), **changes: object) -> Job:
    return job(f"plain{seed}", seed, {"federated": dict(zip("123456", dice))}, **{**SHIFT, **changes})


def personal(seed: int, own: tuple[float, ...], kind: str = "BnLocal", **changes: object) -> Job:
    arms = {"federated": dict.fromkeys("123456", 0.1), "personal": dict(zip("123456", own))}
    return job(f"{kind}{seed}", seed, arms, personal=kind, **{**SHIFT, **changes})


def test_numbers_by_hand() -> None:
    jobs = [plain(0), plain(1), plain(2)]
    jobs += [personal(0, (0.6, 0.8)), personal(1, (0.6, 0.7)), personal(2, (0.7, 0.9))]
    found, unmatched = gains(jobs)
    assert unmatched == []
    (row,) = found.to_dict(orient="records")
    assert (row["method"], row["over"], row["shift"], row["setting"]) == ("BnLocal", "FedAvg", 2.0, "")
    assert (row["region"], row["seeds"], row["cases"]) == ("WT", 3, 2)
    # gains: seed 0 (.1, .2), seed 1 (.1, .1), seed 2 (.2, .3); means .15, .1, .25
    assert row["gain"] == pytest.approx(0.5 / 3)
    half = 4.302653 * math.sqrt((0.15**2 + 0.1**2 + 0.25**2 - 3 * (0.5 / 3) ** 2) / 2) / math.sqrt(3)
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((0.5 / 3 - half, 0.5 / 3 + half))
    assert math.isnan(row["cases_low"])
    assert math.isnan(row["cases_high"])


def test_interval_over_cases_and_institutions() -> None:
    """Six cases, the gain of each the mean over two seeds; those of the last two are of another institution."""
    names = [str(number) for number in range(6)]
    jobs = []
    for seed in (0, 1):
        before = dict.fromkeys(names, 0.2)
        after = {name: 0.2 + (number + 1 + seed) / 10 for number, name in enumerate(names)}
        jobs.append(job(f"plain{seed}", seed, {"federated": before}))
        jobs.append(job(f"own{seed}", seed, {"federated": before, "personal": after}, personal="X"))
    for made in jobs:
        made.cases.loc[made.cases["case"].isin(["4", "5"]), "site"] = "B"
    (row,) = gains(jobs)[0].to_dict(orient="records")
    expected = mean_interval(np.array([0.15, 0.25, 0.35, 0.45, 0.55, 0.65]), (-1, 1), [*"AAAABB"])
    assert (row["cases_low"], row["cases_high"]) == pytest.approx(expected)


def test_t_interval() -> None:
    low, high = t_interval(np.array([1.0, 2.0]))
    assert (low, high) == pytest.approx((1.5 - 12.7062 * 0.5, 1.5 + 12.7062 * 0.5), rel=1e-5)
    assert all(math.isnan(value) for value in t_interval(np.array([1.0])))


def test_jobs_are_matched_by_seed_and_settings() -> None:
    far = {"data.phantom.shift": 4.0}
    jobs = [plain(0), plain(1, (0.2, 0.2)), replace(plain(0, (0.3, 0.3), **far), name="far")]
    jobs += [
        personal(0, (0.6, 0.7)),
        personal(1, (0.6, 0.7)),
        replace(personal(0, (0.4, 0.4), **far), name="p far"),
    ]
    jobs += [replace(personal(5, (0.9, 0.9)), name="lonely")]
    found, unmatched = gains(jobs)
    assert unmatched == ["lonely"]
    assert found[["shift", "seeds", "gain"]].to_numpy().tolist() == [
        [2.0, 2, pytest.approx((0.1 + 0.45) / 2)],
        [4.0, 1, pytest.approx(0.1)],
    ]
    assert found["seeds_low"].isna().tolist() == [False, True]


def test_what_leaves_the_model_as_it_is_may_differ_and_the_rest_may_not() -> None:
    same = {"arms": ["federated", "local"], "runtime.workers": 1, "data.cache": "/a"}
    other = {"arms": ["federated"], "runtime.workers": 2, "data.cache": "/b"}
    assert len(gains([plain(0, **same), personal(0, (0.6, 0.7), **other)])[0]) == 1
    best = plain(0, **{"report.select": "best"})
    assert gains([best, personal(0, (0.6, 0.7), **{"report.select": "last"})])[1] == ["BnLocal0"]


def test_every_method_has_its_name() -> None:
    prox = job(
        "prox", 0, {"federated": {"1": 0.6, "2": 0.6}}, strategy=FEDPROX, **{**SHIFT, "strategy.mu": 0.1}
    )
    prox2 = job(
        "prox2", 0, {"federated": {"1": 0.7, "2": 0.6}}, strategy=FEDPROX, **{**SHIFT, "strategy.mu": 1.0}
    )
    alone = replace(
        plain(0), cases=pd.concat([plain(0).cases, plain(0, (0.3, 0.5)).cases.assign(arm="local")])
    )
    jobs = [alone, prox, prox2, personal(0, (0.6, 0.7)), personal(0, (0.5, 0.7), "Ditto")]
    found, _ = gains(jobs)
    assert dict(zip(found["method"], found["gain"])) == pytest.approx(
        {
            **{"BnLocal": 0.1, "Ditto": 0.05, "FedProx (mu = 0.1)": 0.05, "FedProx (mu = 1.0)": 0.1},
            "Local, own": -0.15,
        }
    )
    assert set(found["over"]) == {"FedAvg"}
    found, _ = gains(jobs, over="FedProx")
    assert set(found["over"]) == {"FedProx (mu = 0.1)", "FedProx (mu = 1.0)"}
    assert "FedAvg" in set(found["method"])
    both = [*jobs, personal(0, (0.6, 0.7), strategy=FEDPROX)]
    assert {"BnLocal with FedAvg", "BnLocal with FedProx"} <= set(gains(both)[0]["method"])


def test_local_models_are_measured_against_their_own_job() -> None:
    jobs = []
    for dice, alone, quorum in ((0.5, 0.4, 0.5), (0.6, 0.3, 1.0)):
        one = plain(0, (dice, dice), **{"strategy.quorum": quorum})
        jobs.append(replace(one, cases=pd.concat([one.cases, one.cases.assign(arm="local", dice=alone)])))
    found, _ = gains([*jobs, personal(0, (0.9, 0.9))])
    local = found[found["method"] == "Local, own"]
    assert dict(zip(local["over"], local["gain"])) == pytest.approx(
        {"FedAvg (quorum = 0.5)": -0.1, "FedAvg (quorum = 1.0)": -0.3}
    )


def test_fedavg_is_what_others_are_measured_against() -> None:
    abc = job("abc", 0, {"federated": {"1": 0.6, "2": 0.6}}, strategy="x.Abc", **SHIFT)
    assert set(gains([abc, plain(0), personal(0, (0.6, 0.7))])[0]["over"]) == {"FedAvg"}
    assert set(gains([abc, personal(0, (0.6, 0.7))])[0]["over"]) == {"Abc"}


def test_rows_are_in_order_of_method_and_shift() -> None:
    jobs = [one for s in (4.0, 0.5, 2.0) for one in (plain(0, **{"data.phantom.shift": s}),)]
    jobs += [
        personal(0, (0.6, 0.7), kind, **{"data.phantom.shift": s}) for kind in "BA" for s in (4.0, 0.5, 2.0)
    ]
    found, _ = gains(jobs)
    assert found[["method", "shift"]].to_numpy().tolist() == [[m, s] for m in "AB" for s in (0.5, 2.0, 4.0)]


def test_figure_draws_the_interval_over_seeds_or_else_over_cases() -> None:
    shifts = {"data.phantom.shift": 4.0}
    six = (0.7, 0.8, 0.8, 0.9, 0.9, 0.9)
    jobs = [plain(0), plain(1), plain(0, (0.5,) * 6, **shifts)]
    jobs += [personal(0, (0.6, 0.8)), personal(1, (0.6, 0.7)), personal(0, six, **shifts)]
    found, _ = gains(jobs)
    figure = gain_figure(found)
    (bars,) = figure.axes[0].containers[0].lines[2]
    ends = [tuple(segment[:, 1]) for segment in bars.get_segments()]
    first, second = found.to_dict(orient="records")
    assert ends[0] == pytest.approx((first["seeds_low"], first["seeds_high"]))
    assert ends[1] == pytest.approx((second["cases_low"], second["cases_high"]))
    assert figure.axes[0].get_ylabel() == "Gain in Dice over FedAvg"


def test_only_shared_cases_count() -> None:
    found, _ = gains(
        [
            plain(0),
            job("p", 0, {"federated": {"1": 0}, "personal": {"1": 0.7, "9": 0.1}}, personal="X", **SHIFT),
        ]
    )
    assert found[["cases", "gain"]].to_numpy().tolist() == [[1, pytest.approx(0.2)]]


def test_other_patients_of_another_phantom_are_other_cases() -> None:
    jobs = [plain(0, **{"data.phantom.seed": seed}) for seed in (0, 1)]
    jobs += [personal(0, (0.6, 0.7), **{"data.phantom.seed": seed}) for seed in (0, 1)]
    row = gains(jobs)[0].iloc[0]
    assert (row["seeds"], row["cases"]) == (2, 4)


def test_nothing_without_both_kinds() -> None:
    prox = job("prox", 0, {"federated": {"1": 0.6}}, strategy=FEDPROX, **SHIFT)
    for jobs in ([plain(0), plain(1)], [plain(0), prox], [personal(0, (0.1, 0.2))], []):
        found, unmatched = gains(jobs)
        assert (len(found), unmatched) == (0, [])
        assert gain_context(found, unmatched) is None
    failed = replace(personal(0, (0.6, 0.7)), status="failed")
    assert len(gains([plain(0), failed])[0]) == 0


def test_what_the_page_prints() -> None:
    far = {"data.phantom.shift": 4.0}
    jobs = [plain(0), plain(0, **far), personal(0, (0.6, 0.7)), personal(0, (0.8, 0.9), **far)]
    found = gain_context(gains(jobs)[0], ["x"])
    assert found is not None
    assert [(row["method"], row["shift"], row["seeds"], row["cases"]) for row in found["rows"]] == [
        ("BnLocal", "2", 1, 2),
        ("BnLocal", "4", 1, 2),
    ]
    assert found["rows"][1]["gain"] == [("+0.300", "", "")]
    assert found["figure"].startswith("data:image/svg")
    assert found["unmatched"] == ["x"]
    assert not found["settings"]
    assert gain_context(gains(jobs[::2])[0], [])["figure"] == ""  # one shift is no curve

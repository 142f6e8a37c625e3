"""The methods of a sweep and their table, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from fedbrats.metrics.table import BY_NAME
from fedbrats.runs.reading import RunFolderError
from fedbrats.studies.jobs import Job, read_jobs
from fedbrats.studies.methods import (
    brought_by_networks,
    check_comparable,
    institution_means,
    method_table,
    methods_of,
    recipes,
)
from tests.report.fake_run import write_run
from tests.studies.made_jobs import FEDAVG, FEDPROX

METRICS = {name: BY_NAME[name].facts("brats2023") for name in ("dice", "hd95")}


def made(
    name: str,
    seed: int,
    strategy: str = FEDAVG,
    dice: tuple[float, float] = (0.8, 0.6),
    arms: tuple[tuple[str, float], ...] = (("federated", 0.0), ("pooled", 0.05)),
    **settings: Any,
) -> Job:
    """A job whose federated and pooled arms have a mean Dice of WT at the institutions A (2 cases) and B (1 case)."""
    rows, scores = [], []
    for arm, shift in arms:
        for site, value, n in (("A", dice[0], 2), ("B", dice[1], 1), ("all", (2 * dice[0] + dice[1]) / 3, 3)):
            row = {"arm": arm, "site": site, "unseen": False, "region": "WT", "n": n}
            rows.append({**row, "dice": value + shift, "hd95": 10 * (1 - value), "percent_of_pooled": 90.0})
            cases = [f"{site}{k}" for k in range(n)] if site != "all" else []
            scores += [
                {**row, "case": case, "dice": value + shift, "hd95": 10 * (1 - value)} for case in cases
            ]
    known = {"seed": seed, "strategy._target_": strategy, **settings}
    job = Job(name, known, pd.DataFrame(rows), "brats2023", "finished", "", True)
    return replace(job, scores=pd.DataFrame(scores), metrics=METRICS)


def test_jobs_that_differ_in_seeds_are_one_method_and_baselines_are_not_doubled() -> None:
    jobs = [
        made(f"{strategy[-7:]}{seed}", seed, strategy, **({"strategy.mu": mu} if mu else {}))
        for strategy, mu in ((FEDAVG, None), (FEDPROX, 0.1), (FEDPROX, 1.0))
        for seed in (1, 2)
    ]
    found = {method.name: [job.name for job in method.jobs] for method in methods_of(jobs)}
    assert found == {
        "FedAvg": [job.name for job in jobs[:2]],
        "FedProx (mu = 0.1)": [job.name for job in jobs[2:4]],
        "FedProx (mu = 1.0)": [job.name for job in jobs[4:]],
        "Pooled": [job.name for job in jobs[:2]],  # the others trained the same ones
    }


def test_the_floor_is_one_whatever_was_trained_and_by_which_seed() -> None:
    arms = (("federated", 0.0), ("floor", -0.3))
    jobs = [
        made(f"{batch}{seed}{floor}{people}", seed, arms=arms, **{"report.floor": floor}, **more)
        for batch, seed, floor, people in ((1, 1, 0.9, 1), (2, 2, 0.9, 1), (1, 1, 0.9, 2), (1, 1, 0.8, 1))
        for more in [{"train.batch": batch, "data.phantom.seed": people, "data.cache": str(seed)}]
    ]
    found = {m.name: [job.name for job in m.jobs] for m in methods_of(jobs) if m.arm == "floor"}
    assert found == {  # a seed of the data makes other patients
        "FLAIR threshold, floor = 0.9": ["110.91", "110.92"],
        "FLAIR threshold, floor = 0.8": ["110.81"],
    }
    names = [m.name for m in methods_of(jobs) if m.arm == "federated"]
    assert names == ["FedAvg, batch = 1", "FedAvg, batch = 2"]  # of which the floor tells nothing


def test_what_baselines_do_know_of_keeps_them_apart() -> None:
    jobs = [made(str(batch), 1, **{"train.batch": batch}) for batch in (1, 2)]
    names = [method.name for method in methods_of(jobs)]
    assert names == ["FedAvg, batch = 1", "FedAvg, batch = 2", "Pooled, batch = 1", "Pooled, batch = 2"]


def test_a_network_stands_for_what_comes_with_it() -> None:
    nets = ({"model._target_": "x.spin", "train.batch": 2}, {"model._target_": "x.unce", "train.batch": 4})
    jobs = [
        made(f"{i}{rate}", 1, **net, **{"train.lr": rate}) for i, net in enumerate(nets) for rate in (1, 2)
    ]
    assert brought_by_networks(jobs) == ["train.batch"]
    assert recipes(jobs) == ["train.batch"]
    names = [method.name for method in methods_of(jobs) if method.arm == "federated"]
    assert names == [f"FedAvg, model = {net}, lr = {rate}" for net in ("spin", "unce") for rate in (1, 2)]
    jobs.append(made("5", 1, **nets[0] | {"train.batch": 3}, **{"train.lr": 1}))
    assert brought_by_networks(jobs) == []
    assert {method.name for method in methods_of(jobs)} >= {"FedAvg, model = spin, batch = 3, lr = 1"}
    assert brought_by_networks(jobs[:2]) == []


def test_a_network_does_not_stand_for_the_data_or_the_algorithm_of_its_job() -> None:
    other = {"model._target_": "x.unce", "partition.alpha": 2.0, "rounds": 9, "loss.share": 1}
    jobs = [
        made("0", 1, **{"model._target_": "x.spin", "partition.alpha": 1.0, "rounds": 5, "loss.share": 0}),
        made("1", 1, FEDPROX, **other),
    ]
    assert brought_by_networks(jobs) == ["loss.share"]
    assert recipes(jobs) == ["loss"]
    names = [method.name for method in methods_of(jobs) if method.arm == "federated"]
    assert names == [
        "FedAvg, model = spin, alpha = 1.0, rounds = 5",
        "FedProx, model = unce, alpha = 2.0, rounds = 9",
    ]


def test_groups_name_a_method() -> None:
    private = {"privacy._target_": "x.DpSgd", "privacy.target_epsilon": 8.0}
    jobs = [made("0", 1), made("1", 1, **private), made("2", 1, **{"personalization._target_": "x.BnLocal"})]
    assert [m.name for m in methods_of(jobs)] == ["FedAvg", "FedAvg, DpSgd", "FedAvg, BnLocal", "Pooled"]


def test_the_table_by_hand() -> None:
    jobs = [made("one", 1, dice=(0.8, 0.6)), made("two", 2, dice=(0.9, 0.5))]
    jobs = [replace(job, epsilon=eps, mb_to_95=mb) for job, eps, mb in zip(jobs, (3.0, 4.0), (10.0, 20.0))]
    jobs[1] = replace(jobs[1], hours_to_95=7.0)  # the other has no clock
    table = method_table(methods_of(jobs), METRICS).set_index(["method", "metric"])
    dice = table.loc["FedAvg", "dice"]
    means = ((2 * 0.8 + 0.6) / 3, (2 * 0.9 + 0.5) / 3)
    assert dice["mean"] == pytest.approx(sum(means) / 2)
    assert dice["sd_seeds"] == pytest.approx(abs(means[0] - means[1]) / math.sqrt(2))
    assert (dice["worst_site"], dice["worst_mean"]) == ("B", pytest.approx(0.55))
    assert dice["gap"] == pytest.approx(0.85 - 0.55)
    assert dice["spread"] == pytest.approx(0.15)  # two institutions, .85 and .55
    assert (dice["epsilon"], dice["mb_to_95"], dice["seeds"], dice["cases"]) == (4.0, 15.0, 2, 3)
    assert dice["hours_to_95"] == 7.0
    assert dice["jobs"] == "one; two"
    hd95 = table.loc["FedAvg", "hd95"]
    assert (hd95["worst_site"], hd95["worst_mean"]) == ("B", pytest.approx(4.5))  # the larger is the worse
    pooled = table.loc["Pooled", "dice"]
    assert math.isinf(pooled["epsilon"])
    assert math.isnan(pooled["mb_to_95"])
    means_by_site = institution_means(methods_of(jobs), METRICS).set_index(["method", "site"])
    assert means_by_site.loc[("FedAvg", "A"), "dice"] == pytest.approx(0.85)
    assert "all" not in means_by_site.index.get_level_values("site")


def test_scores_of_other_conventions_are_refused_by_name() -> None:
    jobs = [made("one", 1), replace(made("two", 2), convention="captk")]
    with pytest.raises(RunFolderError, match=r"brats2023: one; captk: two"):
        check_comparable(jobs)
    check_comparable([jobs[0], replace(jobs[1], status="failed")])


def test_scores_are_means_over_seeds_and_patients_of_other_data_are_others() -> None:
    jobs = [made("one", 1, dice=(0.8, 0.6)), made("two", 2, dice=(0.9, 0.5))]
    (method, _) = methods_of(jobs)
    scores = method.scores(METRICS)
    assert len(scores) == 3
    assert scores.xs("A0", level="case")["dice"].item() == pytest.approx(0.85)
    jobs = [made(str(seed), seed, **{"data.phantom.seed": seed}) for seed in (1, 2)]
    (method, _) = methods_of(jobs)
    assert len(method.scores(METRICS)) == 6


def test_a_method_is_not_named_by_the_steps_that_a_budget_of_time_has_given_its_sites(tmp_path: Path) -> None:
    for name, clock, steps in (("a", {"budget": 200.0}, {"A": 11, "B": 34}), ("b", {"deadline": 500.0}, {})):
        folder = write_run(tmp_path / name, ["A", "B"], [8, 8], (), ("federated",), rounds=1)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["scenario"] = {"clock": {"budget": None, "deadline": None, **clock}}
        config.setdefault("train", {})["site_steps"] = steps
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    names = [method.name for method in methods_of(read_jobs(tmp_path))]
    assert all("site_steps" not in name and "34" not in name for name in names), names
    assert len(names) == 2
    assert "budget = 200.0" in names[0]
    assert "deadline = 500.0" in names[1]

"""Dice over epsilon: what is a point, what is a line."""

from __future__ import annotations

import math

import pytest

from fedbrats.report.compare.figures import epsilon_curve
from fedbrats.studies.epsilon import curve_context, score_over_epsilon
from fedbrats.studies.jobs import Job, described, differing, is_seed
from tests.studies.made_jobs import job

DP = {"privacy._target_": "fedbrats.privacy.dp_sgd.DpSgd", "privacy.delta": 1e-5, "privacy.clip": 1.0}


def private(seed: int, target: float, dice: float, epsilon: float | None = None, **settings: object) -> Job:
    spent = target if epsilon is None else epsilon
    own = {**DP, "privacy.target_epsilon": target, **settings}
    return job(f"dp{target}", seed, {"federated": {"1": dice}, "pooled": {"1": 0.99}}, epsilon=spent, **own)


def public(seed: int, dice: float, **settings: object) -> Job:
    return job("plain", seed, {"federated": {"1": dice}}, **{"privacy": {}, **settings})


def test_seeds_are_one_point_and_no_privacy_is_infinity() -> None:
    jobs = [
        public(0, 0.8),
        public(1, 0.9),
        private(0, 8, 0.5, 7.9),
        private(1, 8, 0.7, 7.95),
        private(0, 3, 0.2),
    ]
    curve = score_over_epsilon(jobs)
    assert set(curve["line"]) == {""}
    assert curve[["setting", "epsilon", "jobs"]].to_numpy().tolist() == [
        ["target 3", 3, 1],
        ["target 8", 7.95, 2],  # the largest of the jobs
        ["", math.inf, 2],
    ]
    assert curve["mean"].tolist() == pytest.approx([0.2, 0.6, 0.85])
    assert curve["sd"].tolist() == pytest.approx([math.nan, 0.02**0.5, 0.005**0.5], nan_ok=True)


def test_other_settings_are_lines_that_share_the_jobs_without_privacy() -> None:
    none, start = {"train.init": None}, {"train.init": "/runs/public/best.safetensors"}
    jobs = [public(0, 0.8, **none), public(0, 0.9, **start)]
    jobs += [private(0, 8, 0.5, **none, **{"privacy.clip": clip}) for clip in (0.5, 1.0)]
    jobs += [private(0, 8, 0.6, **start)]
    curve = score_over_epsilon(jobs)
    lines = {line: part["mean"].tolist() for line, part in curve.groupby("line")}
    assert lines == {
        "init = none, clip = 0.5": [0.5, 0.8],
        "init = none, clip = 1.0": [0.5, 0.8],
        "init = public/best.safetensors, clip = 1.0": [0.6, 0.9],
    }


def test_arms_and_machines_make_no_lines() -> None:
    jobs = [public(0, 0.8, arms=["federated", "local"]), private(0, 8, 0.5, arms=["federated"])]
    assert set(score_over_epsilon(jobs)["line"]) == {""}


def test_a_plain_job_of_other_settings_stands_alone() -> None:
    curve = score_over_epsilon([public(0, 0.8, rounds=5), private(0, 8, 0.5, rounds=10)])
    assert curve[["line", "epsilon"]].to_numpy().tolist() == [["rounds = 10", 8], ["rounds = 5", math.inf]]


def test_fixed_sigma_is_a_setting_too() -> None:
    jobs = [
        private(0, 0, 0.5, 9.0, **{"privacy.target_epsilon": None, "privacy.sigma": s}) for s in (1.0, 2.0)
    ]
    assert sorted(score_over_epsilon(jobs)["setting"]) == ["sigma 1.0", "sigma 2.0"]


def test_nothing_without_privacy() -> None:
    curve = score_over_epsilon([public(0, 0.8), public(1, 0.9)])
    assert not len(curve)
    assert curve_context(curve) is None
    assert not len(score_over_epsilon([]))


def test_what_the_page_prints_and_the_figure_draws() -> None:
    curve = score_over_epsilon([public(0, 0.8), private(0, 8, 0.5), private(0, 20, 0.6)])
    found = curve_context(curve)
    assert found is not None
    assert [(row["line"], row["setting"], row["epsilon"], row["means"]) for row in found["rows"]] == [
        ("All jobs", "target 8", "8.00", [("0.500", "-")]),
        ("All jobs", "target 20", "20.00", [("0.600", "-")]),
        ("All jobs", "no privacy", "infinite", [("0.800", "-")]),
    ]
    axis = epsilon_curve(curve).axes[0]
    line = axis.containers[0].lines[0]
    assert list(line.get_xdata()) == [8, 20, 50]  # infinity right of the largest
    assert list(line.get_ydata()) == [0.5, 0.6, 0.8]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["8", "20", "∞"]


def test_seeds_of_any_kind() -> None:
    for name in ("seed", "partition.seed", "data.phantom.seed", "privacy.insecure_seed"):
        assert is_seed(name)
    for name in ("privacy.sigma", "seeds", "data.seeded"):
        assert not is_seed(name)


def test_a_group_that_some_jobs_lack_is_one_column() -> None:
    jobs = [public(0, 0.8), private(0, 8, 0.5), private(0, 3, 0.5)]
    assert differing([public(0, 0.8), job("old", 0, {"federated": {"1": 0.5}}, privacy=None)]) == []
    assert differing(jobs) == ["privacy._target_", "privacy.target_epsilon"]
    assert (
        described(jobs[1], ["privacy._target_", "privacy.target_epsilon"])
        == "privacy = DpSgd, target_epsilon = 8"
    )

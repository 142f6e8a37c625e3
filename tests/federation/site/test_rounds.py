"""What a site takes from the round: the server's factor, the ramp of a loss, its own intensities; tables of a test."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedbrats.arrays import travelling
from fedbrats.data.intensity import matched_to, reference_histogram
from fedbrats.data.partition import Site
from fedbrats.federation import wire
from fedbrats.federation.server import results
from fedbrats.federation.server.replies import EvaluateReply
from fedbrats.federation.site.evaluation import validation_scores
from fedbrats.federation.site.tables import step_rows
from fedbrats.federation.site.work import SiteWork
from fedbrats.losses.ramp import Ramp
from fedbrats.postprocess.largest_component import LargestComponent
from fedbrats.postprocess.minimum_volume import MinimumVolume
from tests.federation.toy import toy_config, toy_network, write_cached, write_toy_run
from tests.federation.toy_sites import Process, weights

HOSPITAL = {"A": {"train": ["a1", "a2"], "val": ["a3"], "test": ["a4"]}}
RAMP = {
    "_target_": "fedbrats.losses.ramp.Ramp",
    "start": 0.0,
    "end": 1.0,
    "before": {"_target_": "fedbrats.losses.dice.Dice"},
    "after": {"_target_": "fedbrats.losses.cross_entropy.CrossEntropy"},
}


def runtime(tmp_path: Path, **changed: Any) -> Process:
    return Process(write_toy_run(tmp_path, HOSPITAL, **changed)[0])


def test_the_servers_factor_multiplies_the_rate(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    torch.manual_seed(0)
    start = {n: t.detach().clone() for n, t in travelling(toy_network()).items()}

    def moved(factor: float) -> bool:
        found.train("A", wire.to_record(start), "federated", 1, lr_factor=factor)
        return not torch.equal(weights(found), start["0.weight"])

    assert (moved(0.0), moved(1.0)) == (False, True)


def test_the_rate_follows_the_schedule_and_a_personal_model_is_tuned_beyond_it(tmp_path: Path) -> None:
    cosine = replace(toy_config(tmp_path).train, schedule="cosine")
    found = runtime(tmp_path, train=cosine, rounds=4)

    def rate(arm: str, round_: int) -> float:
        work = SiteWork(found.site("A"), arm, round_)
        return float(work.optimizer("any", found.network.parameters(), 0.5).param_groups[0]["lr"])

    last = (1 + math.cos(math.pi * 3 / 4)) / 2
    assert rate("federated", 1) == pytest.approx(0.01 * 0.5)
    assert rate("federated", 4) == pytest.approx(0.01 * 0.5 * last)
    assert rate("personal", 4) == pytest.approx(0.01 * 0.5)


def test_dropout_follows_the_seed(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    work = SiteWork(found.site("A"), "federated", 1)
    drawn = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        work.batches("train")
        drawn.append(torch.rand(9))
    assert torch.equal(*drawn)


def test_the_ramp_of_a_loss_follows_the_round_in_training_and_in_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = runtime(tmp_path, loss=RAMP, rounds=5)
    torch.manual_seed(0)
    model = wire.to_record(travelling(toy_network()))
    told: list[float] = []
    real = Ramp.forward

    def listening(loss: Ramp, logits: torch.Tensor, target: torch.Tensor, when: float = 0.0) -> torch.Tensor:
        told.append(when)
        return real(loss, logits, target, when)

    monkeypatch.setattr(Ramp, "forward", listening)
    for round_ in (1, 3, 5):
        found.train("A", model, "federated", round_)
    assert told == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]  # two steps each
    found.load(model, "A", "federated", 3)
    validation_scores(found.site("A"), "federated", 2)
    assert told[6:] == [0.25]


def test_histograms_are_matched_to_the_training_cases_of_the_site(tmp_path: Path) -> None:
    model = {"_target_": "tests.federation.toy.toy_network", "input": {"normalise": "histogram"}}
    found = runtime(tmp_path, model=model)
    cases = found.site("A").cases
    case, values = cases.test[0], np.asarray(cases.test[0].image, np.float32)
    own, tested = (matched_to(reference_histogram(c))(case, values) for c in (cases.train, cases.test))
    normalise = found.site("A").normalise
    assert normalise is not None
    assert np.array_equal(normalise(case, values), own)
    assert not np.array_equal(own, tested)


def test_every_step_is_compared_with_the_one_before(tmp_path: Path) -> None:
    case = write_cached(tmp_path, "a1", 0)
    truth = np.asarray(case.label).copy()
    stages = [truth.copy(), truth.copy(), truth.copy()]
    stages[0][0, 0, 0] = 3  # removed by the first step; the second one changes nothing
    steps = [LargestComponent(), MinimumVolume(region="ET", ml=0.0)]
    rows = step_rows("A#0000", case, steps, stages, ("WT", "ET"), "brats2023")
    assert [(r["order"], r["region"], r["changed_voxels"]) for r in rows] == [
        (0, "WT", 0),
        (0, "ET", 0),
        (1, "WT", 1),
        (1, "ET", 1),
        (2, "WT", 0),
        (2, "ET", 0),
    ]
    assert [r["dice"] == 1 for r in rows] == [False, False, True, True, True, True]
    assert step_rows("A#0000", case, [], stages[:1], ("WT",), "brats2023") == []


def test_tables_get_their_names_back_and_sums_become_means() -> None:
    numbers = {"bin_low": 0.5, "bin_high": 0.6, "voxels": 10.0, "sum_probability": 5.5, "sum_truth": 4.0}
    empty = {"bin_low": 0.6, "bin_high": 0.7, "voxels": 0.0, "sum_probability": 0.0, "sum_truth": 0.0}
    step = {"case": "A#0001", "region": "ET", "order": 0, "step": "raw", "dice": 1.0, "hd95": 0.0}
    claims = {"arm": "federated", "site": "B"}  # what a site says of itself counts for nothing
    reply = EvaluateReply(
        2,
        0.5,
        {"ET": 1.0},
        0.1,
        rows=[
            {"case": "A#0000", "region": "ET", "uncertainty": 0.25, **claims},
            {"case": "B#0000", "region": "ET"},
        ],
        steps=[{**step, "changed_voxels": 0, **claims}],
        reliability=[{"region": "ET", **numbers, **claims}, {"region": "ET", **empty}],
    )
    tables = results.test_tables("pooled", [Site("A", False, (), (), ("x", "y"))], {"A": reply})
    (bins,) = tables["reliability"]
    assert (bins["arm"], bins["site"], bins["voxels"]) == ("pooled", "A", 10.0)
    assert (bins["mean_probability"], bins["observed"]) == pytest.approx((0.55, 0.4))
    assert [(r["case"], r["uncertainty"]) for r in tables["uncertainty"]] == [
        ("x", 0.25)
    ]  # a stranger is left out
    assert [r["case"] for r in tables["steps"]] == ["y"]
    assert {(r["arm"], r["site"]) for found in tables.values() for r in found} == {("pooled", "A")}

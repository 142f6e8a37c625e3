"""Whole runs in which not everybody takes part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedbrats.commands.run.run import run
from fedbrats.config.schema import load_config
from fedbrats.config.targets import ConfigError
from fedbrats.runs.rounds import simulated_hours
from fedbrats.scenario.clock import convergence, made_up, steps_within
from tests.commands.run.test_run import results_of, rows_of
from tests.tiny import tiny

pytestmark = pytest.mark.slow  # whole runs

HARD = (
    *(
        "scenario.sample=2",
        "scenario.dropout=0.3",
        "scenario.clock.enabled=true",
        "scenario.clock.spread=0.2",
    ),
    *("arms=[federated,local]", "rounds=4", "strategy=scaffold", "train/optimizer=sgd_plain"),
)


def test_a_resumed_run_goes_through_the_same(cache: Path, tmp_path: Path) -> None:
    whole = run(tiny(cache, *HARD), tmp_path / "whole")
    rounds = rows_of(whole / "rounds.csv")
    trained = [r for r in rounds if r["arm"] == "federated" and r["phase"] == "train"]
    assert len(trained) == 8  # two sites in each of four rounds
    assert {r["status"][:6] for r in trained} == {"ok", "failed"}
    assert simulated_hours(whole) > 0
    summary = json.loads((whole / "summary.json").read_text())
    server = [r for r in rounds if r["arm"] == "federated" and r["phase"] == "round"]
    worth = [sum(float(r[f"dice_{region}"]) for region in ("wt", "tc", "et")) / 3 for r in server]
    score = convergence([float(r["hours"]) for r in server], worth, 168)
    assert summary["clock"]["convergence"] == pytest.approx(score, abs=1e-6)
    assert (summary["clock"]["hours"], summary["clock"]["horizon_hours"]) == (simulated_hours(whole), 168)
    half = Path(shutil.copytree(whole, tmp_path / "half"))
    shutil.rmtree(half)
    half = run(tiny(cache, *[o for o in HARD if o != "rounds=4"], "rounds=2"), half)
    file = half / "config.yaml"
    file.write_text(file.read_text().replace("rounds: 2\n", "rounds: 4\n"))
    (half / "summary.json").unlink()
    run(tiny(cache, f"run.resume={half}"), half)
    assert results_of(half) == results_of(whole)


def test_a_budget_of_time_becomes_steps_of_each_site(cache: Path, tmp_path: Path) -> None:
    budget = ("scenario.clock.enabled=true", "scenario.clock.budget=60", "arms=[federated]", "rounds=1")
    folder = run(tiny(cache, *budget), tmp_path / "run")
    config = load_config(folder / "config.yaml")
    expected = {site: steps_within(60, made_up(site), config.train) for site in ("CBICA", "TCIA01", "TCIA02")}
    assert config.train.site_steps == expected
    assert len(set(expected.values())) > 1
    trained = {r["site"]: int(r["steps"]) for r in rows_of(folder / "rounds.csv") if r["phase"] == "train"}
    assert trained == expected
    with pytest.raises(ConfigError, match=r"scenario\.clock\.budget=60 and train\.site_steps"):
        run(tiny(cache, *budget, "+train.site_steps={CBICA:1}"), tmp_path / "both")


def test_a_stranger_in_the_schedule_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scenario\.away names \['X'\]"):
        run(tiny(cache, "+scenario.away.X=[[1,2]]"), tmp_path / "run")

"""Rounds in which not everybody takes part, and the simulated clock over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.config.scenario import ClockConfig, ScenarioConfig
from fedbrats.federation.arms import Cohort
from fedbrats.runs.rounds import read_rounds, simulated_hours
from fedbrats.runs.taking_part import taking_part
from fedbrats.scenario.clock import Clock, SiteTimes, Work
from fedbrats.scenario.participation import AWAY, Participation
from tests.federation.toy_rounds import CASES, good, rows_of, serve, values

# Seconds of a round: A 3600, B 7200, C 10800.
TIMES = {site: SiteTimes(0.0, 0.0, 3600.0 * number, 0.0) for number, site in enumerate(CASES, start=1)}


def rule(**settings: Any) -> Participation:
    config = ScenarioConfig(**settings)
    clock = Clock(config.clock, TIMES, dict.fromkeys(CASES, Work(0, 0)), 0) if config.clock.enabled else None
    return Participation(config, 0, clock)


def test_who_is_away_is_missed_and_counts_as_asked(tmp_path: Path) -> None:
    """Without B (2 cases): (1 * 8 + 5 * 0) / 6 = 4/3; with a quorum of all of them the old model stays."""
    away = rule(away={"B": [[1, None]]})
    fed = serve(tmp_path, good(), participation=away)
    assert values(fed) == pytest.approx([4 / 3, 4 / 3])
    assert [(r["site"], r["status"]) for r in rows_of(tmp_path)] == [
        ("B", AWAY),
        ("A", "ok"),
        ("C", "ok"),
        ("server", "ok"),
    ]
    (part,) = [p for p in taking_part(read_rounds(tmp_path)) if p.site == "B"]
    assert (part.missed, part.reasons) == (1, "1 x no reply in time")
    strict = tmp_path / "strict"
    strict.mkdir()
    serve(strict, good(), participation=away, algorithm=FedAvg(quorum=1.0))
    assert rows_of(strict)[-1]["status"].startswith("failed: 2 of 3 replies usable, quorum needs 3")


def test_who_is_not_drawn_is_not_missed(tmp_path: Path) -> None:
    rules = rule(sample=2.0)
    serve(tmp_path, good(), participation=rules, algorithm=FedAvg(quorum=1.0), rounds=8)
    rows = rows_of(tmp_path)
    assert [r["status"] for r in rows if r["phase"] == "round"] == ["ok"] * 8
    for round_ in range(1, 9):
        asked = [r["site"] for r in rows if r["phase"] == "train" and r["round"] == str(round_)]
        assert tuple(asked) == rules.of(list(CASES), round_).drawn
    parts = taking_part(read_rounds(tmp_path))
    assert sum(part.contributed for part in parts) == 16
    assert all(part.missed == 0 and part.rounds == part.contributed for part in parts)


def test_only_the_federation_is_sampled(tmp_path: Path) -> None:
    cohorts = [Cohort("federated", tuple(CASES)), *(Cohort(f"local:{site}", (site,)) for site in CASES)]
    serve(tmp_path, good(), participation=rule(sample=1.0), cohorts=cohorts, rounds=3)
    trained = [r["arm"] for r in rows_of(tmp_path) if r["phase"] == "train"]
    assert {arm: trained.count(arm) for arm in dict.fromkeys(trained)} == {
        "federated": 3,
        **{f"local:{site}": 3 for site in CASES},
    }


def test_a_late_reply_is_dropped_and_the_round_ends_at_the_deadline(tmp_path: Path) -> None:
    """Without C (5 cases): (1 * 8 + 2 * 4) / 3 = 16/3."""
    fed = serve(
        tmp_path, good(), participation=rule(clock=ClockConfig(enabled=True, deadline=9000.0)), rounds=2
    )
    assert values(fed) == pytest.approx([16 / 3, 16 / 3])
    rows = rows_of(tmp_path)
    assert rows[2]["status"] == "failed: late, after the deadline of the round (scenario.clock.deadline)"
    assert [r["hours"] for r in rows[:4]] == ["1.0", "2.0", "3.0", "2.5"]
    assert rows[-1]["hours"] == "5.0"
    assert simulated_hours(tmp_path) == fed.hours == 5.0
    (part,) = [p for p in taking_part(read_rounds(tmp_path)) if p.site == "C"]
    assert part.reasons == "2 x late reply"


@pytest.mark.parametrize("one_exchange", [False, True])
def test_the_federation_ends_with_the_first_round_after_the_horizon(
    one_exchange: bool, tmp_path: Path
) -> None:
    clock = rule(clock=ClockConfig(enabled=True))
    cohorts = [Cohort("federated", tuple(CASES)), Cohort("local:A", ("A",))]
    fed = serve(
        tmp_path,
        good(),
        participation=clock,
        cohorts=cohorts,
        rounds=5,
        horizon=8.0,
        one_exchange=one_exchange,
    )
    rows = [r for r in rows_of(tmp_path) if r["phase"] == "round"]
    assert [r["hours"] for r in rows if r["arm"] == "federated"] == ["3.0", "6.0", "9.0"]
    assert [r["hours"] for r in rows if r["arm"] == "local:A"] == [""] * 5  # the others go on
    assert fed.finished_round == 5
    alone = tmp_path / "alone"
    alone.mkdir()
    fed = serve(alone, good(), participation=clock, rounds=5, horizon=8.0, one_exchange=one_exchange)
    assert (fed.finished_round, fed.checkpointed) == (3, 3)


def test_it_is_said_to_end_after_its_last_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = rule(clock=ClockConfig(enabled=True))
    serve(tmp_path, good(), participation=clock, rounds=5, horizon=8.0, one_exchange=True)
    assert [r.getMessage() for r in caplog.records if "stops after" in r.getMessage()] == [
        "federated stops after round 3: the simulated clock has run out (scenario.clock.horizon)"
    ]

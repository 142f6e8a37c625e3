"""Who takes part in a round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbrats.commands.run.run import run
from fedbrats.config.scenario import ClockConfig, ScenarioConfig
from fedbrats.config.targets import ConfigError
from fedbrats.scenario.clock import Clock, SiteTimes, Work
from fedbrats.scenario.participation import (
    AWAY,
    DROPPED,
    Asked,
    Participation,
    check_scenario,
    check_sites,
)
from tests.tiny import tiny

SITES = ("A", "B", "C", "D", "E")


def rule(seed: int = 0, **settings: Any) -> Participation:
    return Participation(ScenarioConfig(**settings), seed)


def test_everybody_takes_part_where_nothing_is_said() -> None:
    assert rule().of(SITES, 1) == Asked(SITES, {}, [])


@pytest.mark.parametrize(("sample", "number"), [(0.4, 2), (0.41, 3), (0.01, 1), (3.0, 3), (5.0, 5)])
def test_so_many_sites_are_drawn_in_their_order(sample: float, number: int) -> None:
    for round_ in range(1, 20):
        drawn = rule(sample=sample).of(SITES, round_).drawn
        assert len(drawn) == number
        assert list(drawn) == sorted(drawn)


def test_sites_are_drawn_alike_often_and_anew_in_every_round() -> None:
    drawn = [rule(sample=2.0).of(SITES, round_).drawn for round_ in range(1, 501)]
    counts = {site: sum(site in sites for sites in drawn) for site in SITES}
    assert all(abs(count - 200) < 45 for count in counts.values())  # 4 standard deviations of 500 x .4
    assert len(set(drawn)) == 10  # all pairs
    assert drawn == [rule(sample=2.0).of(SITES, round_).drawn for round_ in range(1, 501)]
    assert drawn != [rule(1, sample=2.0).of(SITES, round_).drawn for round_ in range(1, 501)]


def test_sites_drop_out_with_their_probability() -> None:
    lost = [rule(dropout=0.2).of(SITES, round_) for round_ in range(1, 401)]
    assert {status for asked in lost for status in asked.unreachable.values()} == {DROPPED}
    share = sum(len(asked.unreachable) for asked in lost) / 2000
    assert share == pytest.approx(0.2, abs=0.036)  # 4 standard deviations
    assert all(asked.drawn == SITES for asked in lost)  # they count as asked
    assert all(set(asked.reachable) | set(asked.unreachable) == set(SITES) for asked in lost)


def test_a_site_is_away_when_the_schedule_says_so() -> None:
    late_joiner, leaver, guest = [[1, 2]], [[4, None]], [[2, 2], [4, 4]]
    rules = rule(away={"A": late_joiner, "B": leaver, "C": guest})
    away = {round_: sorted(rules.of(SITES, round_).unreachable) for round_ in range(1, 6)}
    assert away == {1: ["A"], 2: ["A", "C"], 3: [], 4: ["B", "C"], 5: ["B"]}
    assert rules.of(SITES, 1).unreachable["A"] == AWAY


def test_slow_sites_are_late_and_the_round_ends_at_the_deadline() -> None:
    config = ScenarioConfig(clock=ClockConfig(enabled=True, deadline=60.0), away={"C": [[2, None]]})
    times = {site: SiteTimes(2.0 if site != "B" else 9.0, 1.0, 5.0, 5.0) for site in SITES}
    clock = Clock(config.clock, times, dict.fromkeys(SITES, Work(10, 5)), 0)
    rules = Participation(config, 0, clock)
    first, second = rules.of(SITES, 1), rules.of(SITES, 2)
    assert (first.late, second.late) == (["B"], ["B"])
    assert rules.length(first, 1) == 60
    assert rules.length(Asked(("A", "C")), 1) == 35
    assert rule().length(first, 1) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sample": 0.0}, "scenario.sample=0.0: a share"),
        ({"sample": 1.5}, "scenario.sample=1.5: a share"),
        ({"dropout": 1.0}, "scenario.dropout=1.0"),
        ({"away": {"A": [3, 5]}}, "scenario.away.A"),
        ({"away": {"A": [[5, 3]]}}, "scenario.away.A"),
        ({"away": {"A": [[0, 3]]}}, "scenario.away.A"),
        ({"poisoned": {"A": "lies"}}, "scenario.poisoned.A=lies: choose one of sign_flip"),
        ({"poison_strength": 0.0}, "scenario.poison_strength=0.0"),
        ({"clock": ClockConfig(deadline=60.0)}, "scenario.clock.deadline=60.0: needs the clock"),
        ({"clock": ClockConfig(horizon=60.0)}, "scenario.clock.horizon=60.0: needs the clock"),
        ({"clock": ClockConfig(table="x.csv")}, "scenario.clock.table=x.csv: needs the clock"),
        ({"clock": ClockConfig(enabled=True, budget=0.0)}, "scenario.clock.budget=0.0: must be"),
        ({"clock": ClockConfig(enabled=True, spread=1.0)}, "scenario.clock.spread=1.0"),
    ],
)
def test_what_cannot_be_is_refused_by_key(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        check_scenario(ScenarioConfig(**settings))


def test_strangers_are_refused() -> None:
    check_scenario(ScenarioConfig(away={"A": [[3, None]]}, sample=5.0))
    with pytest.raises(ConfigError, match=r"scenario\.away names \['X'\]"):
        check_sites(ScenarioConfig(away={"X": [[1, 2]]}), SITES)
    with pytest.raises(ConfigError, match=r"scenario\.poisoned names \['X'\]"):
        check_sites(ScenarioConfig(poisoned={"X": "scale"}), SITES)
    with pytest.raises(ConfigError, match=r"scenario\.sample=6: only 5 sites"):
        check_sites(ScenarioConfig(sample=6.0), SITES)


def test_a_sample_must_be_large_enough_for_the_algorithm(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs 3 sites that train, here are 2"):
        run(tiny(cache, "strategy=trimmed_mean", "scenario.sample=2"), tmp_path / "sample")
    with pytest.raises(ConfigError, match=r"strategy\.root=TCIA13, which does not train"):
        run(tiny(cache, "strategy=fltrust", "strategy.root=TCIA13"), tmp_path / "root")

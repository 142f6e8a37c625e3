"""The simulated clock, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.config.scenario import ClockConfig
from fedbrats.config.schema import TrainConfig
from fedbrats.config.targets import ConfigError
from fedbrats.scenario.clock import (
    COLUMNS,
    RANGES,
    Clock,
    SiteTimes,
    Work,
    convergence,
    made_up,
    site_times,
    steps_within,
    work_of,
)

FAST = SiteTimes(train=2.0, validate=1.0, download=10.0, upload=20.0)
SLOW = SiteTimes(train=8.0, validate=1.0, download=10.0, upload=20.0)
WORK = {"fast": Work(10, 5), "slow": Work(10, 5)}


def clock(**settings: float) -> Clock:
    return Clock(ClockConfig(enabled=True, **settings), {"fast": FAST, "slow": SLOW}, WORK, seed=0)


def test_a_site_downloads_validates_trains_and_uploads() -> None:
    assert clock().seconds("fast", 1) == 10 + 5 * 1 + 10 * 2 + 20
    assert clock().seconds("slow", 1) == 10 + 5 * 1 + 10 * 8 + 20


def test_a_round_lasts_until_the_last_answer_or_until_the_deadline() -> None:
    assert clock().length(["fast", "slow"], False, 1) == 115
    assert (
        clock().length(["fast"], True, 1) == 55
    )  # without a deadline nobody waits for who cannot be reached
    assert clock(deadline=60).late(["fast", "slow"], 1) == ["slow"]
    assert clock(deadline=60).length(["fast"], True, 1) == 60
    assert clock(deadline=60).length(["fast"], False, 1) == 55
    assert clock(deadline=60).length([], True, 1) == 60


def test_times_vary_from_round_to_round_by_their_share() -> None:
    drawn = [clock(spread=0.1).seconds("slow", round_) / 115 for round_ in range(1, 401)]
    mean = sum(drawn) / 400
    assert mean == pytest.approx(1, abs=0.02)
    assert (sum((x - mean) ** 2 for x in drawn) / 399) ** 0.5 == pytest.approx(0.1, rel=0.15)
    assert drawn == [clock(spread=0.1).seconds("slow", round_) / 115 for round_ in range(1, 401)]


def test_work_is_counted_in_cases() -> None:
    train = TrainConfig(local_epochs=2, batch=2, patches_per_case=3)
    assert work_of("A", 10, 4, train) == Work(
        20.0, 4
    )  # 2 epochs of 10 cases: 30 steps of 2 of 3 patches each
    train = TrainConfig(local_steps=6, batch=2, patches_per_case=1, site_steps={"B": 1})
    assert work_of("A", 10, 4, train) == Work(12.0, 4)
    assert work_of("B", 10, 4, train) == Work(2.0, 4)


def test_a_budget_of_time_is_a_number_of_steps() -> None:
    train = TrainConfig(batch=2, patches_per_case=1)
    assert steps_within(100.0, FAST, train) == 25  # 2 cases of 2 s
    assert steps_within(100.0, SLOW, train) == 6
    assert steps_within(1.0, SLOW, train) == 1
    assert steps_within(100.0, FAST, TrainConfig(batch=2, patches_per_case=4)) == 100


def test_without_a_table_times_are_made_up_within_what_fets_saw() -> None:
    found = site_times(ClockConfig(enabled=True), ["A", "B"])
    assert found["A"] == made_up("A") != found["B"]
    for name in COLUMNS:
        low, high = getattr(RANGES, name)
        assert all(low <= getattr(made_up(str(k)), name) <= high for k in range(50))


def test_a_table_of_times(tmp_path: Path) -> None:
    file = tmp_path / "times.csv"
    file.write_text("site,train,validate,download,upload\nA,2,1,10,20\nB,8,1,10,20\n")
    assert site_times(ClockConfig(enabled=True, table=str(file)), ["B"]) == {"B": SLOW}
    for text, said in (
        ("site,train,validate,download\nA,1,2,3\n", "no column upload"),
        ("site,train,validate,download,upload\nA,1,2,3,4\n", "no row for B"),
        ("site,train,validate,download,upload\nB,1,x,3,4\n", "B: seconds must be numbers"),
        ("site,train,validate,download,upload\nB,1,-1,3,4\n", "B: seconds must be numbers"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            site_times(ClockConfig(enabled=True, table=str(file)), ["B"])


def test_the_convergence_score_by_hand() -> None:
    # 0 until hour 2, .5 until hour 4, .8 until hour 10 (a later .6 does not count): (0 + 1 + 4.8) / 10
    assert convergence([2, 4, 6], [0.5, 0.8, 0.6], 10) == pytest.approx(0.58)
    assert convergence([2, 4, 12], [0.5, 0.8, 0.99], 10) == pytest.approx(0.58)  # after the horizon
    assert convergence([], [], 10) == 0.0
    assert convergence([12], [0.9], 10) == 0.0

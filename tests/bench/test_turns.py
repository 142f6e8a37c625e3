"""Steps that take turns, each in a process of its own."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
import torch

from fedbrats.bench.turns import Cost, Runner, Step, least_costs


def step_of(name: str, log: Path) -> Step:
    """A step that writes its name down; "hungry" touches 200 MB, "busy" computes, "idle" waits as long."""

    def step() -> None:
        with log.open("a") as file:
            file.write(f"{name} ")
        if name == "broken":
            raise ValueError("the reason\nand more")
        if name == "hungry":
            torch.ones(50_000_000)
        end = time.process_time() + 0.2
        while name == "busy" and time.process_time() < end:
            pass
        if name == "idle":
            time.sleep(0.2)

    return step


@pytest.mark.slow
def test_each_has_its_own_seconds_and_memory(tmp_path: Path) -> None:
    turns = {"hungry": 1, "busy": 3, "idle": 3, "broken": 2}
    runners = [Runner(make=partial(step_of, name, tmp_path / "log"), turns=n) for name, n in turns.items()]
    *costs, broken, absent = least_costs([*runners, Runner(make=print, turns=0)])
    assert (tmp_path / "log").read_text().split() == [
        *("hungry", "busy", "idle", "broken"),
        *("busy", "idle"),  # the broken one's process has ended
        *("busy", "idle"),
    ]
    assert all(isinstance(cost, Cost) for cost in costs)
    hungry, busy, idle = costs
    assert 190 < hungry.megabytes < 240
    assert busy.megabytes < 20
    assert 0.2 <= busy.seconds < 0.25
    assert idle.seconds < 0.05
    assert broken == "failed: the reason"
    assert absent == "not run"

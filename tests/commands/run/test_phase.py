"""What is known of a phase: who answered, the steps of the sites, the time left."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.commands.run.phase import Counted, Phase
from fedbrats.training.steps import StepCounts

SITES = [("federated", name) for name in "ABCD"]


@pytest.fixture
def counts(tmp_path: Path) -> StepCounts:
    return StepCounts.create(tmp_path / "steps", [*"ABCD", "pooled"])


def taken(counts: StepCounts, **steps: int) -> None:
    for site, number in steps.items():
        for _ in range(number):
            counts.add(site)


def test_who_answered_and_who_is_awaited_in_the_order_asked() -> None:
    phase = Phase("val", SITES, began=100.0)
    assert (phase.over, phase.left(130.0)) == (False, None)
    phase.reply("federated", "B", ok=True)
    phase.arrived([("federated", "D")])
    assert phase.sentence(130.0) == (
        "val: 2 of 4 answered (B, D), waiting for A, C | about 30 s left of this phase"
    )
    for name in "ACD":
        phase.reply("federated", name, ok=name != "C")
    assert (phase.over, phase.failed, phase.per_reply(140.0)) == (True, 1, 10.0)


def test_the_arms_are_named_where_there_are_several() -> None:
    asked = [("federated", "A"), ("local:A", "A"), ("pooled", "pooled")]
    phase = Phase("train", asked, 0.0)
    assert phase.sentence(1.0).startswith("train: 0 of 3 answered, waiting for A, A (local), pooled |")
    elsewhere = Phase("test", [("local:A", "A"), ("local:A", "B")], 0.0).sentence(1.0)
    assert elsewhere.startswith("test of local:A: 0 of 2 answered, waiting for A, B |")


def test_many_sites_are_not_all_named() -> None:
    phase = Phase("train", [("federated", str(i)) for i in range(23)], 0.0)
    assert "waiting for 0, 1, 2, 3, 4, 5, 6, 7, 15 more |" in phase.sentence(1.0)


def test_the_phase_before_is_a_guide_until_it_is_passed() -> None:
    phase = Phase("val", SITES, 0.0, before=5.0)
    assert phase.left(8.0) == 12.0
    assert phase.left(21.0) is None
    phase.reply("federated", "A", ok=True)
    assert phase.left(24.0) == 72.0


def test_the_steps_of_the_sites_are_the_best_guide(counts: StepCounts) -> None:
    taken(counts, A=3, B=7)  # in a round before
    phase = Phase("train", SITES[:2], 0.0, before=1000.0, counted=Counted(counts, dict.fromkeys(SITES, 20)))
    assert (phase.steps(), phase.left(4.0)) == ((0, 40), 1996.0)
    taken(counts, A=4, B=6)
    assert (phase.steps(), phase.left(5.0)) == ((10, 40), 15.0)
    assert phase.sentence(5.0).endswith("waiting for A, B | 10 of 40 steps | about 15 s left of this phase")
    phase.reply("federated", "A", ok=False)  # it will take no more
    assert phase.steps() == (26, 40)
    taken(counts, B=100)  # more than it was asked for, which is not progress of this phase
    assert phase.steps() == (40, 40)


def test_a_site_that_trains_for_two_arms_is_counted_once(counts: StepCounts) -> None:
    asked = [("federated", "A"), ("local:A", "A"), ("pooled", "pooled")]
    phase = Phase("train", asked, 0.0, counted=Counted(counts, dict.fromkeys(asked, 10)))
    taken(counts, A=12, pooled=1)
    phase.reply("federated", "A", ok=True)
    assert phase.steps() == (13, 30)


def test_only_training_takes_steps(counts: StepCounts) -> None:
    assert Phase("val", SITES, 0.0, counted=Counted(counts, dict.fromkeys(SITES, 10))).steps() is None

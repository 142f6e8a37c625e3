"""A model for each group: what its sites are sent, what becomes of it, and what everybody else gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message

from fedbrats.algorithms.base import Company, Group, Memory, Reply
from fedbrats.algorithms.clustered import Clustered
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server import round_loop
from fedbrats.federation.server.asking import records_given
from fedbrats.runs.checkpoint import load_best, load_checkpoint, save_best
from tests.federation.toy import FakeGrid, evaluate_reply, federation
from tests.federation.toy_rounds import CASES, members, rows_of, sends

GROUPS = {"a": ["A", "C"], "b": ["B"]}
GROUP = Group(3, frozenset({"w"}), ("A", "B", "C"))
OLD = {"w": torch.zeros(1)}


def reply(site: str, value: float, cases: int) -> Reply:
    return Reply(site, {"w": np.float32([value])}, cases, steps=1)


def step(algorithm: Clustered, memory: Memory, *replies: Reply) -> tuple[float, Memory]:
    found = algorithm.collect(memory)
    for one in replies:
        found.add(one)
    new, after = algorithm.step(OLD, found, memory, GROUP)
    return float(new["w"]), after


def models(algorithm: Clustered, memory: Memory) -> dict[str, float]:
    given = {site: algorithm.given(OLD, memory, algorithm.version(memory, site)) for site in (*"ABC", "NEW")}
    return {site: float(model["w"]) for site, model in given.items()}


def test_two_rounds_by_hand() -> None:
    """A of 1 case at 8 and C of 5 at 2: 3. B of 2 at 4. All: (6 * 3 + 2 * 4) / 8 = 3.25. Then A alone answers, with 0:
    its group has 1 case now, and b keeps its model: (0 + 2 * 4) / 3.
    """
    algorithm = Clustered(groups=GROUPS)
    assert models(algorithm, Memory()) == dict.fromkeys((*"ABC", "NEW"), 0.0)
    mean, memory = step(algorithm, Memory(), reply("A", 8, 1), reply("B", 4, 2), reply("C", 2, 5))
    assert (mean, models(algorithm, memory)) == (3.25, {"A": 3.0, "B": 4.0, "C": 3.0, "NEW": 0.0})
    mean, memory = step(algorithm, memory, reply("A", 0, 1))
    assert mean == pytest.approx(8 / 3)
    assert models(algorithm, memory) == {"A": 0.0, "B": 4.0, "C": 0.0, "NEW": 0.0}


def test_a_group_that_has_never_answered_keeps_the_first_model_and_has_no_part_in_the_mean() -> None:
    mean, memory = step(Clustered(groups=GROUPS), Memory(), reply("B", 4, 2))
    assert (mean, memory.facts["cases"]) == (4.0, {"a": 0, "b": 2})
    assert models(Clustered(groups=GROUPS), memory)["A"] == 0.0


@pytest.mark.parametrize(
    ("groups", "seen"),
    [
        ({"a": ["A"], "b": ["B"]}, "see C;"),
        ({"a": ["A", "B"], "b": ["B", "C"]}, "see B;"),
        ({"a": ["A", "B", "C", "D"]}, "see D;"),
    ],
)
def test_every_site_belongs_to_one_group(groups: dict[str, list[str]], seen: str) -> None:
    assert seen in str(Clustered(groups=groups).refuses_sites("ABC"))
    assert Clustered(groups=GROUPS).refuses_sites("ABC") is None


def test_what_it_cannot_be_combined_with() -> None:
    assert "name them, strategy.groups=" in str(Clustered().refuses(Company()))
    algorithm = Clustered(groups=GROUPS)
    assert algorithm.refuses(Company()) is None
    assert "choose one of them" in str(algorithm.refuses(Company(personal=True)))
    assert "privacy=central" in str(algorithm.refuses(Company(central_privacy=True)))


# In a round


def test_each_site_is_sent_the_model_of_its_group_in_training_and_validation(tmp_path: Path) -> None:
    told: dict[str, list[float]] = {site: [] for site in CASES}

    def site(name: str, value: float) -> object:
        def answer(message: Message) -> Message | None:
            told[name].append(float(message.content["arrays"]["w"].numpy().mean()))
            kind = message.metadata.message_type
            return sends(value, CASES[name])(message) if kind == "train" else evaluate_reply(to=message)

        return answer

    algorithm = Clustered(groups=GROUPS, timeout=5)
    cohorts = [Cohort("federated", tuple(CASES), algorithm)]
    fed = federation(tmp_path, members(val=2), cohorts, algorithm, 2)
    fed.trainable = frozenset({"w", "b"})
    round_loop.serve(FakeGrid([site("A", 8.0), site("B", 4.0), site("C", 2.0)]), fed)  # type: ignore[list-item]
    begun = 3.5  # mean of the toy's w
    assert told == {"A": [begun, 3, 3, 3], "B": [begun, 4, 4, 4], "C": [begun, 3, 3, 3]}
    assert {row["status"] for row in rows_of(tmp_path) if row["phase"] == "train"} == {"ok"}
    stored = load_checkpoint(tmp_path / "checkpoints")
    assert stored is not None
    records = records_given(cohorts[0], fed.models["federated"].arrays, fed.models["federated"].memory, "ABC")
    again = records_given(
        cohorts[0], stored.models["federated"].arrays, stored.models["federated"].memory, "ABC"
    )
    assert records["A"] is records["C"]  # made once
    assert all(records[s]["w"].data == again[s]["w"].data for s in "ABC")  # a resumed run sends the same
    assert records["A"]["w"].data != records["B"]["w"].data


def test_the_best_models_are_kept_with_their_groups(tmp_path: Path) -> None:
    _, memory = step(Clustered(groups=GROUPS), Memory(), reply("A", 8, 1), reply("B", 4, 2))
    save_best(tmp_path, "federated", {"w": torch.ones(1)}, memory)
    arrays, kept = load_best(tmp_path, "federated")
    assert (float(arrays["w"]), kept.facts) == (1.0, memory.facts)
    assert all(torch.equal(kept.arrays[name], array) for name, array in memory.arrays.items())
    save_best(tmp_path, "pooled", {"w": torch.ones(1)})
    assert load_best(tmp_path, "pooled")[1] == Memory()

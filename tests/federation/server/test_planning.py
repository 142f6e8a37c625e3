"""The server plans from what sites tell: who is asked, what is too little, and that every site has made the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedbrats.commands.compose import compose_config
from fedbrats.data.fingerprint import read_fingerprint
from fedbrats.data.survey import ALL, BOX, bins_of
from fedbrats.federation import questions
from fedbrats.federation.server.planning import planned_by_sites, tell_plan
from fedbrats.federation.server.state import FederationError, Member
from fedbrats.files import read_json
from fedbrats.models.planned import digest_of, make_plan, read_plan
from tests.data.test_fingerprint import told
from tests.federation.toy import FakeGrid, Quiet, error_message

CONFIG = compose_config(["model=nnunet", "model.plan=federated", "strategy.max_cases=50"])
MEMBERS = {"A": Member(2, 3, 1, 1), "B": Member(3, 3, 1, 1), "C": Member(4, 0, 0, 1)}
Counts = dict[str, list[int]]


def counts(spacing: float, side: int, patients: int) -> Counts:
    plain = {name: [0] * len(bins_of(name)) for name in ALL}
    found = told([(spacing,) * 3] * patients, [(side,) * 3] * patients) if patients else {}
    return plain | found


def answer(of: Counts) -> Callable[[Message], Message]:
    def reply(message: Message) -> Message:
        assert message.metadata.message_type == questions.SURVEY
        return Message(RecordDict({"survey": ConfigRecord({"values": json.dumps(of)})}), reply_to=message)

    return reply


def plan_of(folder: Path, *sites: Counts) -> Any:
    said = list[str]()
    grid = FakeGrid([answer(of) for of in sites])
    return planned_by_sites(grid, folder, CONFIG, MEMBERS, Quiet(), said.append), said


def test_the_plan_is_that_of_all_patients_together(tmp_path: Path) -> None:
    """Nine of 13 patients are at A; the site that only tests counts with none."""
    found, said = plan_of(tmp_path, counts(1.0, 60, 9), counts(2.0, 100, 4), counts(9.0, 500, 0))
    written = read_json(tmp_path / "plan.json")
    assert written["fingerprint"]["patients"] == 13
    assert written["fingerprint"]["spacing"] == [1.0, 1.0, 1.0]
    assert written["fingerprint"]["alike"] == pytest.approx(9 / 13, abs=1e-4)
    assert found.model["strides"] == written["plan"]["strides"]
    assert found.model["input"]["patch"] == written["plan"]["patch"]
    assert said == [f"plan: {reason}" for reason in written["plan"]["reasons"]]
    assert set(read_json(tmp_path / "survey.json")["bins"]) == set(ALL)


def test_too_little_is_said_with_what_to_do(tmp_path: Path) -> None:
    nobody = counts(1.0, 60, 0)
    with pytest.raises(FederationError, match=r"cannot be planned: no count of .* lower survey\.least=3"):
        plan_of(tmp_path, nobody, nobody, nobody)


def test_a_site_cannot_decide_every_median(tmp_path: Path) -> None:
    much = counts(1.0, 60, 4)
    much[BOX] = [0, 0, 51, 0, 0]
    with pytest.raises(FederationError, match=r"site A tells of more patients than strategy\.max_cases=50"):
        plan_of(tmp_path, much, counts(1.0, 60, 4), counts(1.0, 60, 0))


def takes(site: str, changed: Callable[[str], str] = str) -> Callable[[Message], Message]:
    """A site that plans by itself from what it was sent."""

    def reply(message: Message) -> Message:
        assert message.metadata.message_type == questions.PLAN
        text = str(message.content["plan"]["fingerprint"])
        sha256 = digest_of(make_plan(CONFIG, read_fingerprint(text)))
        facts = ConfigRecord({"site": site, "sha256": changed(sha256)})
        return Message(RecordDict({"facts": facts}), reply_to=message)

    return reply


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            takes("B", lambda sha256: sha256[::-1]),
            "site B has made another plan of the network than the server",
        ),
        (takes("A"), "site B has made another plan"),
        (
            lambda message: error_message("limits.plan_memory_gb=1", message),
            r"site B .*limits\.plan_memory_gb=1",
        ),
    ],
)
def test_a_site_with_another_plan_ends_it(second: Any, said: str, tmp_path: Path) -> None:
    plan_of(tmp_path, *[counts(1.0, 60, 4)] * 3)
    made, nodes = read_plan(tmp_path / "plan.json", ""), {2: "A", 3: "B"}
    tell_plan(FakeGrid([takes("A"), takes("B")]), tmp_path, made, nodes, 5.0)
    with pytest.raises(FederationError, match=said):
        tell_plan(FakeGrid([takes("A"), second]), tmp_path, made, nodes, 5.0)

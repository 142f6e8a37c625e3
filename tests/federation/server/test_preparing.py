"""Sites of a deployment: waited for until each has prepared itself and approved, and known by their keys."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedbrats.engines.sites import SERVER_NODE, set_identity, set_message_id
from fedbrats.federation import questions
from fedbrats.federation.server import preparing
from fedbrats.federation.server.preparing import prepare_sites
from fedbrats.federation.server.state import FederationError

STUDY = ("rounds: 2\n", "abc")


class Sites:
    """A Grid behind which each node says one thing after the other; the last one for ever."""

    def __init__(self, says: dict[int, list[object]]) -> None:
        self.says, self.asked, self._waiting = says, list[int](), dict[str, Message]()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        for message in messages:
            set_message_id(message, f"{len(self.asked)}")
            self.asked.append(message.metadata.dst_node_id)
            assert message.metadata.message_type == questions.PREPARE
            assert dict(message.content["study"]) == {"text": STUDY[0], "sha256": STUDY[1]}
            self._waiting[message.metadata.message_id] = message
        return [m.metadata.message_id for m in messages]

    def pull_messages(self, ids: list[str]) -> list[Message]:
        message = self._waiting.pop(ids[0])
        says = self.says[message.metadata.dst_node_id]
        said = says.pop(0) if len(says) > 1 else says[0]
        if isinstance(said, Error):
            return [Message(said, reply_to=message)]
        return [Message(RecordDict({"facts": ConfigRecord(said)}), reply_to=message)]


def says(site: str, state: str = "ready", sha256: str = "abc") -> dict[str, str]:
    return {"site": site, "state": state, "sha256": sha256}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "PAUSE", 0.0)
    set_identity(SERVER_NODE)


def prepared(grid: Sites, online: dict[int, str], patience: float = 5.0) -> tuple[dict[int, str], list[str]]:
    told: list[str] = []
    return prepare_sites(grid, lambda: online, ["a", "b"], STUDY, 5.0, patience, told.append), told


def test_a_site_that_waits_for_approval_is_asked_again_and_a_ready_one_is_not() -> None:
    grid = Sites({2: [says("a")], 3: [says("b", "waits"), says("b", "waits"), says("b")]})
    found, told = prepared(grid, {2: "a", 3: "b"})
    assert found == {2: "a", 3: "b"}
    assert grid.asked == [2, 3, 3, 3]
    assert told == ["waiting for b (approval at the site)"]


@pytest.mark.parametrize("code", preparing.UNAVAILABLE)
def test_a_site_that_goes_away_is_waited_for(code: int) -> None:
    grid = Sites({2: [says("a")], 3: [Error(code, "gone"), says("b")]})
    found, told = prepared(grid, {2: "a", 3: "b"})
    assert found == {2: "a", 3: "b"}
    assert told == ["waiting for b (connection)"]


def test_a_site_that_was_ready_and_is_gone_is_waited_for_again() -> None:
    grid = Sites({2: [says("a")], 3: [says("b")]})
    there = iter([{2: "a"}, {3: "b"}, {2: "a", 3: "b"}])
    assert prepare_sites(grid, lambda: next(there), ["a", "b"], STUDY, 5.0, 5.0, lambda _: None) == {
        2: "a",
        3: "b",
    }
    assert grid.asked == [2, 3, 2]


def test_strangers_are_not_asked_and_who_never_comes_is_named() -> None:
    grid = Sites({2: [says("a")]})
    with pytest.raises(
        FederationError, match=r"not all sites were ready in time: waiting for b \(connection\)"
    ):
        prepared(grid, {2: "a", 9: "stranger"}, patience=0.01)
    assert grid.asked == [2]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (says("b"), "the key of site a is used by one that calls itself 'b'"),
        (says("a", sha256="other"), "site a answered for another study"),
        (says("a", "perhaps"), "site a answered for another study"),
        (Error(2, "rounds=3 was 2"), "site a did not prepare itself: rounds=3 was 2"),
    ],
)
def test_what_a_site_must_not_say_ends_the_study(said: object, reason: str) -> None:
    with pytest.raises(FederationError, match=reason):
        prepared(Sites({2: [said], 3: [says("b")]}), {2: "a", 3: "b"})

"""The Grid of a study before Flower's: whom it waits for, and what it makes of a SuperLink that is away."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import torch
from flwr.app import Message, RecordDict

from fedbrats.engines.sites import SERVER_NODE, set_identity
from fedbrats.engines.superlink.grid import NODE_UNAVAILABLE, StudyGrid
from fedbrats.federation.bundle import NAME
from fedbrats.federation.wire import to_record

A, B = 11, 12


@dataclass(frozen=True)
class Node:
    node_id: int
    public_key: bytes
    status: str


@dataclass
class FlowersGrid:
    """Nodes, and the errors that the next requests meet."""

    status: dict[int, str] = field(default_factory=lambda: {A: "online", B: "online"})
    away: int = 0
    unknown: bool = False
    sent: list[int] = field(default_factory=list)
    replies: dict[str, Message] = field(default_factory=dict)

    def _ask(self) -> None:
        if self.away:
            self.away -= 1
            raise httpx.ConnectError("refused")

    def get_nodes(self) -> list[Node]:
        self._ask()
        return [Node(node, str(node).encode(), status) for node, status in self.status.items()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Takes one message; a site hands back what it got."""
        self._ask()
        (message,) = messages
        self.sent.append(message.metadata.dst_node_id)
        self.replies[f"id-{len(self.sent)}"] = Message(message.content, reply_to=message)
        return [] if self.unknown else [f"id-{len(self.sent)}"]

    def pull_messages(self, ids: Iterable[str]) -> list[Any]:
        self._ask()
        return [self.replies[message_id] for message_id in ids]


def to(*nodes: int) -> list[Message]:
    set_identity(SERVER_NODE)
    return [Message(RecordDict(), node, "train", ttl=60.0, group_id="1") for node in nodes]


@pytest.fixture
def flowers() -> FlowersGrid:
    return FlowersGrid()


def grid(flowers: FlowersGrid, naps: list[float] | None = None, comes_back: int | None = None) -> StudyGrid:
    """A grid whose naps are noted; with the third of them, `comes_back` is connected."""
    taken = [] if naps is None else naps

    def sleep(seconds: float) -> None:
        taken.append(seconds)
        if len(taken) == 3 and comes_back:
            flowers.status[comes_back] = "online"

    made = StudyGrid(flowers, sleep)
    made.nodes = {A: "hospital-a", B: "hospital-b"}
    return made


def test_a_question_waits_for_a_site_that_comes_back(flowers: FlowersGrid) -> None:
    naps, said = list[float](), list[str]()
    flowers.status[B] = "offline"
    made = grid(flowers, naps, comes_back=B)
    made.wait_for_sites(3600.0, said.append)
    assert made.push_messages(to(A, B)) == ["id-1", "id-2"]
    assert len(naps) == 3
    assert said == ["waiting for hospital-b: not connected", "the rounds go on"]
    made.push_messages(to(A, B))
    assert len(said) == 2


def test_it_waits_for_those_only_whom_it_goes_to(flowers: FlowersGrid) -> None:
    naps = list[float]()
    del flowers.status[B]  # unregistered
    made = grid(flowers, naps)
    made.wait_for_sites(3600.0, lambda text: None)
    made.push_messages(to(A))
    assert (flowers.sent, naps) == ([A], [])


def test_it_does_not_wait_for_ever(flowers: FlowersGrid) -> None:
    flowers.status[B] = "offline"
    made = grid(flowers)
    made.wait_for_sites(0.05, lambda text: None)
    made.push_messages(to(A, B))
    assert flowers.sent == [A, B]


def test_where_not_all_sites_are_needed_nobody_waits(flowers: FlowersGrid) -> None:
    naps = list[float]()
    flowers.status[B] = "offline"
    grid(flowers, naps).push_messages(to(A, B))
    assert (flowers.sent, naps) == ([A, B], [])


def test_a_message_waits_for_a_superlink_that_is_away(flowers: FlowersGrid) -> None:
    naps, flowers.away = list[float](), 2
    assert grid(flowers, naps).push_messages(to(A)) == ["id-1"]
    assert len(naps) == 2


def test_a_superlink_that_is_away_has_no_replies_and_no_nodes(flowers: FlowersGrid) -> None:
    made = grid(flowers)
    made.push_messages(to(A))
    flowers.away = 2
    assert made.pull_messages(["id-1"]) == []
    assert made.online({b"11": "hospital-a"}) == {}
    assert [reply.metadata.src_node_id for reply in made.pull_messages(["id-1"])] == [A]
    assert made.online({b"11": "hospital-a"}) == {A: "hospital-a"}


def test_arrays_cross_as_one_and_are_read_as_they_were(flowers: FlowersGrid) -> None:
    made, messages = grid(flowers), to(A, B)
    for message in messages:
        message.content["arrays"] = to_record({"w": torch.ones(2), "v": torch.zeros(1)})
    ids = made.push_messages(messages)
    assert [list(flowers.replies[name].content["arrays"]) for name in ids] == [[NAME], [NAME]]
    for name in ids:
        (reply,) = made.pull_messages([name])
        assert reply.content == messages[0].content


def test_the_next_reply_is_fetched_while_one_is_looked_at_and_no_other(flowers: FlowersGrid) -> None:
    made, C = grid(flowers), 13
    ids = made.push_messages(to(A, B, C))
    came, pull = {name: threading.Event() for name in ids}, flowers.pull_messages

    def pulled(names: Iterable[str]) -> list[Any]:
        (name,) = names
        came[name].set()
        return pull([name])

    flowers.pull_messages = pulled  # type: ignore[method-assign]
    for name, following, node in zip(ids, ids[1:], (A, B), strict=False):
        assert [reply.metadata.src_node_id for reply in made.pull_messages([name])] == [node]
        assert came[following].wait(10)
        assert name != ids[0] or not came[ids[2]].is_set()
    came[ids[2]].clear()
    assert [reply.metadata.src_node_id for reply in made.pull_messages([ids[2]])] == [C]
    assert not came[ids[2]].is_set()  # it had come already


def test_what_went_wrong_ahead_of_time_goes_wrong_in_its_turn(flowers: FlowersGrid) -> None:
    made = grid(flowers)
    one, two = made.push_messages(to(A, B))
    kept = flowers.replies.pop(two)
    assert made.pull_messages([one])
    with pytest.raises(KeyError):
        made.pull_messages([two])
    flowers.replies[two] = kept
    assert [reply.metadata.src_node_id for reply in made.pull_messages([two])] == [B]


def test_a_reply_that_had_not_come_ahead_of_time_is_asked_for_again(flowers: FlowersGrid) -> None:
    made = grid(flowers)
    one, two = made.push_messages(to(A, B))
    there, pull = [False], flowers.pull_messages
    flowers.pull_messages = lambda ids: pull(ids) if there[0] or ids == [one] else []  # type: ignore
    made.pull_messages([one])
    assert made._ahead[two].result() == []
    there[0] = True
    assert [reply.metadata.src_node_id for reply in made.pull_messages([two])] == [B]


def test_a_message_that_the_superlink_does_not_take_is_answered_with_an_error(flowers: FlowersGrid) -> None:
    flowers.unknown = True
    made = grid(flowers)
    (message_id,) = made.push_messages(to(B))
    (reply,) = made.pull_messages([message_id])
    assert (reply.error.code, reply.metadata.src_node_id) == (NODE_UNAVAILABLE, B)

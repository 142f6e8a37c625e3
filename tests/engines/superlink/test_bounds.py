"""What a site may fill of the SuperLink's memory with one reply, however it asks and sends."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.routers.fleet import router
from flwr.superlink.servicer.fleet import fleet_handlers

from fedbrats.engines.superlink import bounds

A, B = Node(node_id=2), Node(node_id=3)
RUN, LIMIT = 7, 100


def content(size: int) -> bytes:
    """An object of Flower's, empty but for its body, of `size` bytes."""
    head = f"Array{HEAD_VALUE_DIVIDER}{HEAD_VALUE_DIVIDER}"
    length = next(n for n in range(size) if len(f"{head}{n}") + len(HEAD_BODY_DIVIDER) + n == size)
    return f"{head}{length}".encode() + HEAD_BODY_DIVIDER + b"x" * length


class State:
    """Of a SuperLink: it has objects, and stores all that comes."""

    def __init__(self) -> None:
        self.objects, self.stored = {"model": b"m" * 5000, "names": b"n" * 1000}, 0

    def get_object(self, run: int, name: str) -> bytes | None:
        return self.objects.get(name)

    def store_object(self, run: int, session: str, name: str, content: bytes) -> bool:
        self.stored += len(content)
        return True

    def store_traffic(self, run: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Flower counts them, too."""


class SuperLink:
    """Flower's own handlers before a state, with one question for everybody."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.question, self.state = "q1", State()
        monkeypatch.setattr(bounds, "SPARE", LIMIT)
        monkeypatch.setattr(fleet_handlers, "pull_messages", self._pull_messages)
        monkeypatch.setattr(fleet_handlers, "check_abort", lambda *given: None)
        for name in ("pull_object", "push_object"):  # as they were, when the test is over
            monkeypatch.setattr(fleet_handlers, name, getattr(fleet_handlers, name))
        monkeypatch.setattr(InMemoryObjectStore.__init__, "__defaults__", (True,))
        bounds.bound_replies()

    def _pull_messages(self, request: Any, state: Any, store: Any) -> PullMessagesResponse:
        response = PullMessagesResponse()
        if self.question:
            response.messages_list.add().metadata.message_id = self.question
        return response

    def asks(self, node: Node, *names: str) -> None:
        """A node fetches its question and these objects of it."""
        nothing: Any = SimpleNamespace()
        fleet_handlers.pull_messages(request=PullMessagesRequest(node=node), state=nothing, store=nothing)
        for name in names:
            request = PullObjectRequest(node=node, run_id=RUN, object_id=name)
            response = fleet_handlers.pull_object(request=request, state=self.state)  # type: ignore[arg-type]
            assert response.object_content == self.state.objects[name]

    def takes(self, node: Node, size: int, name: str = "") -> bool:
        """Whether it stores an object of that many bytes, under its own name or another."""
        given = content(size)
        request = PushObjectRequest(
            node=node, run_id=RUN, object_id=name or get_object_id(given), object_content=given
        )
        return fleet_handlers.push_object(request=request, state=self.state).stored  # type: ignore[arg-type]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    return SuperLink(monkeypatch)


def test_a_reply_may_have_so_much_of_its_question_and_no_more(
    superlink: SuperLink, caplog: pytest.LogCaptureFixture
) -> None:
    superlink.asks(A, "model", "names")
    whole = bounds.TIMES * 6000 + LIMIT
    assert superlink.takes(A, whole - 100)
    assert superlink.takes(A, 100)
    assert not superlink.takes(A, 100)
    assert superlink.state.stored == whole
    assert warnings(caplog) == [f"node 2 sends more than {whole} bytes for one reply: refused"]


def test_every_question_begins_anew_and_one_that_is_fetched_again_does_not(superlink: SuperLink) -> None:
    for question in ("q1", "q2"):
        superlink.question = question
        superlink.asks(A)
        assert superlink.takes(A, LIMIT)
        superlink.asks(A)  # it was not confirmed, and so is handed out again
        assert not superlink.takes(A, 100)
        superlink.question = ""
        superlink.asks(A)
        assert not superlink.takes(A, 100)


def test_what_is_fetched_twice_counts_once(superlink: SuperLink) -> None:
    superlink.asks(A, *["model"] * 5)
    assert not superlink.takes(A, bounds.TIMES * 5000 + LIMIT + 1)


def test_a_short_question_may_be_answered_with_a_model_that_others_were_sent(superlink: SuperLink) -> None:
    superlink.asks(A, "model")
    superlink.question = "q2"
    superlink.asks(B, "names")
    assert superlink.takes(B, bounds.TIMES * 5000 + LIMIT)
    assert not superlink.takes(B, 100)


def test_who_was_asked_nothing_has_little(superlink: SuperLink) -> None:
    assert superlink.takes(B, LIMIT)
    assert not superlink.takes(B, 100)


def test_an_object_under_the_name_of_another_is_refused(
    superlink: SuperLink, caplog: pytest.LogCaptureFixture
) -> None:
    assert superlink.takes(B, 40)
    assert not superlink.takes(B, 40, name=get_object_id(b"another"))
    assert superlink.state.stored == 40
    assert warnings(caplog) == ["node 3 sends an object under the name of another: refused"]


def test_what_is_none_of_flowers_objects_is_refused(superlink: SuperLink, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.modules[__name__], "content", lambda size: b"x" * size)
    assert not superlink.takes(B, 60)
    assert superlink.state.stored == 0


def test_flower_compares_objects_with_their_names_unless_told_otherwise(superlink: SuperLink) -> None:
    store, tree = InMemoryObjectStore(verify=True), ObjectTree(object_id="0" * 64)
    store.preregister(RUN, tree)
    with pytest.raises(ValueError, match="does not match"):
        store.put(tree.object_id, b"what has another name")
    unchecked = InMemoryObjectStore()
    unchecked.preregister(RUN, tree)
    unchecked.put(tree.object_id, b"what has another name")


def test_flower_asks_the_functions_that_are_replaced() -> None:
    source = inspect.getsource(router)
    for name in ("pull_messages", "pull_object", "push_object"):
        assert f"fleet_handlers.{name}(" in source

"""What a site may fill of the SuperLink's memory with one reply, however it asks and sends."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import (
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.superlink.routers.fleet import router
from flwr.superlink.servicer.fleet import fleet_handlers

from fedbrats.engines.superlink import bounds

A, B = Node(node_id=2), Node(node_id=3)
RUN, LIMIT = 7, 100


def sized(message: Any, size: int) -> Any:
    """`message` with a content that makes it `size` bytes."""
    for length in range(size):
        message.object_content = b"x" * (size - length)
        if message.ByteSize() == size:
            return message
    raise AssertionError(f"{size} bytes are too few")


class SuperLink:
    """Stands for Flower's handlers: it has one question for everybody, and stores all that comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.question, self.objects, self.stored = "q1", {"model": 5000, "names": 1000}, 0
        monkeypatch.setattr(bounds, "SPARE", LIMIT)
        monkeypatch.setattr(fleet_handlers, "pull_messages", self._pull_messages)
        monkeypatch.setattr(fleet_handlers, "pull_object", self._pull_object)
        monkeypatch.setattr(fleet_handlers, "push_object", self._push_object)
        bounds.bound_replies()

    def _pull_messages(self, request: Any, state: Any, store: Any) -> PullMessagesResponse:
        response = PullMessagesResponse()
        if self.question:
            response.messages_list.add().metadata.message_id = self.question
        return response

    def _pull_object(self, request: Any, state: Any) -> PullObjectResponse:
        return sized(PullObjectResponse(object_found=True), self.objects[request.object_id])

    def _push_object(self, request: Any, state: Any) -> PushObjectResponse:
        self.stored += request.ByteSize()
        return PushObjectResponse(stored=True)

    def asks(self, node: Node, *names: str) -> None:
        """A node fetches its question and these objects of it."""
        nothing: Any = SimpleNamespace()
        fleet_handlers.pull_messages(request=PullMessagesRequest(node=node), state=nothing, store=nothing)
        for name in names:
            request = PullObjectRequest(node=node, run_id=RUN, object_id=name)
            fleet_handlers.pull_object(request=request, state=nothing)

    def takes(self, node: Node, size: int) -> bool:
        request = sized(PushObjectRequest(node=node, run_id=RUN), size)
        nothing: Any = SimpleNamespace()
        return fleet_handlers.push_object(request=request, state=nothing).stored


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
    assert superlink.stored == whole
    assert caplog.messages == [f"node 2 sends more than {whole} bytes for one reply: refused"]


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


def test_flower_asks_the_functions_that_are_replaced() -> None:
    source = inspect.getsource(router)
    for name in ("pull_messages", "pull_object", "push_object"):
        assert f"fleet_handlers.{name}(" in source

"""A question whose way to its site was cut is handed out again, and none that arrived or that nobody waits for."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.superlink.routers.fleet import router
from flwr.superlink.servicer.fleet import fleet_handlers

from fedbrats.engines.superlink.superlink import hand_out_again

A, B = Node(node_id=2), Node(node_id=3)


def holding(message: str, ttl: float = 60.0) -> PullMessagesResponse:
    response = PullMessagesResponse()
    about = response.messages_list.add().metadata
    about.run_id, about.message_id, about.created_at, about.ttl = 7, message, time.time(), ttl
    return response


@pytest.fixture
def pull(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Pull for a node from a SuperLink that has a new message each time; `status` is that of its run."""
    new = iter(range(100))
    monkeypatch.setattr(
        fleet_handlers, "pull_messages", lambda request, state, store: holding(str(next(new)), state.ttl)
    )
    for name in ("push_messages", "confirm_message_received"):
        monkeypatch.setattr(fleet_handlers, name, MagicMock())
    hand_out_again()

    def pulled(node: Node, status: str = "running", ttl: float = 60.0) -> str:
        state = SimpleNamespace(get_run_status=lambda runs: {7: SimpleNamespace(status=status)}, ttl=ttl)
        response = fleet_handlers.pull_messages(
            request=PullMessagesRequest(node=node),
            state=state,
            store=None,  # type: ignore[arg-type]
        )
        return response.messages_list[0].metadata.message_id

    return pulled


def test_what_was_not_confirmed_is_handed_out_again_to_the_same_site(pull: Callable[..., str]) -> None:
    assert [pull(A), pull(B), pull(A), pull(A), pull(B)] == ["0", "1", "0", "0", "1"]


def test_what_was_confirmed_or_answered_is_not(pull: Callable[..., str]) -> None:
    state: Any = None
    assert pull(A) == "0"
    fleet_handlers.confirm_message_received(
        request=ConfirmMessageReceivedRequest(node=A), state=state, store=state
    )
    assert pull(A) == "1"
    fleet_handlers.push_messages(request=PushMessagesRequest(node=A), state=state)
    assert pull(A) == "2"


def test_what_nobody_waits_for_is_not(pull: Callable[..., str]) -> None:
    assert [pull(A), pull(A, status="finished")] == ["0", "1"]
    assert [pull(B, ttl=-1.0), pull(B)] == ["2", "3"]


def test_flower_asks_the_functions_that_are_replaced() -> None:
    source = inspect.getsource(router)
    for name in ("pull_messages", "push_messages", "confirm_message_received"):
        assert f"fleet_handlers.{name}(" in source
    assert "limit=1" in inspect.getsource(fleet_handlers.pull_messages)  # one message at a time

"""A SuperNode asks more often and answers whatever it was asked; what is set otherwise is still where we think."""

from __future__ import annotations

import inspect
import re
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from fedbrats.engines.sites import CLIENT_APP_CRASHED, set_identity
from fedbrats.engines.superlink import supernode


def test_supernode_sleeps_three_seconds_by_the_module_that_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = inspect.getsource(start_client_internal)
    assert "time.sleep(3)" in source
    assert set(re.findall(r"\btime\.(\w+)", source)) == {
        "sleep"
    }  # nothing else of the module would be missed
    slept, now = list[float](), [100.0]
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: now[0])
    monkeypatch.setattr(supernode, "time", clock)
    monkeypatch.setattr(start_client_internal, "time", start_client_internal.time)
    supernode.ask_more_often()
    sleep = start_client_internal.time.sleep
    sleep(0.5)  # a reply is waited for
    sleep(3)
    now[0] += 10.0
    sleep(3)
    now[0] += 60.0
    sleep(3)
    sleep(0.5)
    sleep(3)  # the next question may come soon
    assert slept == pytest.approx(
        [supernode.REPLY, supernode.SOONEST, 1.0, supernode.LATEST, supernode.REPLY, supernode.SOONEST]
    )


def question(state: InMemoryNodeState) -> Message:
    """A message at a SuperNode, of the run 1."""
    message = Message(RecordDict(), 2, "train")
    about = message.metadata
    about.__dict__.update(_run_id=1, _src_node_id=1, _message_id=message.object_id)
    state.store_message(message)
    return message


@pytest.mark.parametrize("fetched", [True, False])
def test_a_message_whose_task_failed_is_answered_with_an_error(
    fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("finish_task", "_store_error_replies"):
        monkeypatch.setattr(InMemoryNodeState, name, getattr(InMemoryNodeState, name))
    set_identity(2)
    for patched in (False, True):
        state = InMemoryNodeState(InMemoryObjectStore())
        asked, task = question(state), state.create_task(TaskType.CLIENT_APP, run_id=1, fab_hash="")
        assert task is not None
        if fetched:
            assert state.get_messages_legacy(is_reply=False)
        state.finish_task(task, SubStatus.FAILED, "")
        replies = state.get_messages_legacy(is_reply=True)
        if not patched:
            assert not replies  # what Flower leaves behind, and why this is needed
            supernode.answer_failed_tasks()
    assert [reply.metadata.reply_to_message_id for reply in replies] == [asked.metadata.message_id]
    assert replies[0].error.code == CLIENT_APP_CRASHED


def test_a_reply_that_is_there_is_sent_though_its_task_failed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("finish_task", "_store_error_replies"):
        monkeypatch.setattr(InMemoryNodeState, name, getattr(InMemoryNodeState, name))
    supernode.answer_failed_tasks()
    set_identity(2)
    state = InMemoryNodeState(InMemoryObjectStore())
    asked, task = question(state), state.create_task(TaskType.CLIENT_APP, run_id=1, fab_hash="")
    reply = Message(RecordDict(), reply_to=asked)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    state.store_message(reply)
    state.finish_task(task or 0, SubStatus.FAILED, "")
    assert state.get_messages_legacy(is_reply=True) == [reply]


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Flower's loop, which a test may change; as it was when the test is over. Its own way to fetch."""
    for name in ("_pull_and_store_message", "_push_messages"):
        monkeypatch.setattr(start_client_internal, name, getattr(start_client_internal, name))
    monkeypatch.setattr(InMemoryObjectStore.__init__, "__defaults__", (True,))
    monkeypatch.delenv(supernode.HOME, raising=False)
    set_identity(2)
    return start_client_internal._pull_and_store_message


def given(**other: Any) -> dict[str, Any]:
    """What Flower's loop fetches with: a message of the run 7, an object of which is still at the SuperLink."""
    state, store, message = InMemoryNodeState(MagicMock()), MagicMock(), Message(RecordDict(), 2, "train")
    message.metadata.__dict__.update(_run_id=7, _src_node_id=1, _message_id="asked")
    state.store_run(SimpleNamespace(run_id=7, fab_hash="", primary_task_type=""))  # type: ignore[arg-type]
    store.preregister.return_value = ["object"]
    asks = {
        "receive": lambda: (message, MagicMock()),
        "pull_object": lambda run, name: b"",
        "confirm_message_received": lambda run, name: None,
    }
    rest = dict.fromkeys(("node_config", "get_run", "get_fab", "trusted_entities"))
    return {"state": state, "object_store": store, **rest, **asks, **other}


def replies(how: dict[str, Any]) -> list[Message]:
    return list(how["state"].get_messages_legacy(is_reply=True))


def tree_and_contents() -> tuple[Any, dict[str, bytes]]:
    """A message of two arrays as Flower sends it."""
    arrays = ArrayRecord({name: Array(np.full(3, i)) for i, name in enumerate("ab")})
    message = Message(RecordDict({"arrays": arrays}), 2, "train")
    objects = get_all_nested_objects(message)
    return get_object_tree(message), {name: part.deflate() for name, part in objects.items()}


@pytest.mark.parametrize("ours", [False, True])
def test_the_worker_has_an_object_as_soon_as_it_has_come(ours: bool, unpatched: Any) -> None:
    tree, contents = tree_and_contents()
    store, put, seen = InMemoryObjectStore(), list[str](), list[bool]()

    def pull(run: int, name: str) -> bytes:
        seen.extend(bool(store.get(other)) for other in contents if other in before)
        before.append(name)
        return contents[name]

    before = list[str]()
    how = given(pull_object=pull, receive=lambda: (given()["receive"]()[0], tree), object_store=store)
    keep = store.put
    store.put = lambda name, content: (put.append(name), keep(name, content))[1]  # type: ignore[method-assign]
    if ours:
        supernode.hand_on_at_once()
    with pytest.MonkeyPatch.context() as patch:  # one after the other, for the order in which they are seen
        patch.setattr("flwr.supercore.inflatable.inflatable_utils.get_num_workers", lambda most: 1)
        assert start_client_internal._pull_and_store_message(**how) == 7
    assert set(seen) == {ours}  # Flower: none of them until all have come
    assert sorted(put) == sorted(contents)  # each once: it is hashed there
    assert {name: store.get(name) for name in contents} == contents


def test_a_message_whose_object_is_none_of_flowers_is_answered(unpatched: Any) -> None:
    tree, _ = tree_and_contents()
    supernode.answer_what_was_taken()
    supernode.hand_on_at_once()  # in this order, as `flower.main` has it
    how = given(pull_object=lambda run, name: b"something else", object_store=InMemoryObjectStore())
    message, _ = how["receive"]()
    message.metadata.__dict__["_message_id"] = tree.object_id
    assert start_client_internal._pull_and_store_message(**{**how, "receive": lambda: (message, tree)}) == 7
    (reply,) = replies(how)
    assert "could not be fetched (UnexpectedObjectContentError)" in reply.error.reason


@pytest.mark.parametrize("ours", [False, True])
def test_what_the_worker_hands_over_is_left_to_the_superlink_to_check(ours: bool, unpatched: Any) -> None:
    if ours:
        supernode.hand_on_at_once()
    store, tree = InMemoryObjectStore(), ObjectTree(object_id="0" * 64)
    store.preregister(7, tree)
    with pytest.raises(ValueError, match="does not match") if not ours else nullcontext():
        store.put(tree.object_id, b"what has another name")


def test_of_a_message_that_breaks_off_nothing_stays(unpatched: Any) -> None:
    tree, contents = tree_and_contents()
    store, last = InMemoryObjectStore(), list(contents)[-1]

    def pull(run: int, name: str) -> bytes:
        if name == last:
            raise OSError("gone")
        return contents[name]

    supernode.hand_on_at_once()
    how = given(pull_object=pull, object_store=store)
    message, _ = how["receive"]()
    message.metadata.__dict__["_message_id"] = tree.object_id
    assert (
        start_client_internal._pull_and_store_message(**{**how, "receive": lambda: (message, tree)}) is None
    )
    assert len(store) == 0


@pytest.mark.parametrize("ends", ["pull_object", "confirm_message_received"])
def test_a_message_whose_run_ends_while_it_is_fetched_leaves_no_task(ends: str, unpatched: Any) -> None:
    how = given(**{ends: MagicMock(side_effect=RunNotRunningException)})
    assert unpatched(**how) is None
    assert [task.status.status for task in how["state"].get_tasks()] == ["pending"]  # why this is needed
    supernode.answer_what_was_taken()
    how = given(**{ends: MagicMock(side_effect=RunNotRunningException)})
    assert start_client_internal._pull_and_store_message(**how) is None
    assert [task.status.status for task in how["state"].get_tasks()] == ["finished"]
    assert not replies(how)


def test_a_message_that_cannot_be_fetched_is_answered(unpatched: Any) -> None:
    broken = {"pull_object": MagicMock(side_effect=OSError("/data/John Smith"))}
    assert unpatched(**given(**broken)) is None
    supernode.answer_what_was_taken()
    how = given(**broken)
    assert start_client_internal._pull_and_store_message(**how) == 7  # so that the loop goes on to send
    (reply,) = replies(how)
    assert reply.metadata.reply_to_message_id == "asked"
    assert reply.error.reason == "its message could not be fetched (OSError)"


def test_what_a_killed_supernode_had_is_answered_by_the_next_once(
    unpatched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(supernode.HOME, str(tmp_path / "flower"))
    supernode.answer_what_was_taken()
    fetch = start_client_internal._pull_and_store_message
    assert fetch(**given()) == 7  # and killed
    nothing = given(receive=lambda: None)
    assert fetch(**nothing) == 7
    (reply,) = replies(nothing)
    assert (reply.metadata.reply_to_message_id, reply.error.code) == ("asked", CLIENT_APP_CRASHED)
    assert fetch(**given(receive=lambda: None)) is None


def test_what_was_answered_is_not_answered_again(
    unpatched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(supernode.HOME, str(tmp_path))
    sent: list[Any] = []
    monkeypatch.setattr(start_client_internal, "_push_messages", lambda **how: sent.append(how))
    supernode.answer_what_was_taken()
    start_client_internal._pull_and_store_message(**given())
    assert (tmp_path / supernode.TAKEN).stat().st_mode & 0o777 == 0o600
    start_client_internal._push_messages(state=None)
    assert sent
    assert start_client_internal._pull_and_store_message(**given(receive=lambda: None)) is None


def test_a_note_that_is_torn_or_cannot_be_written_stops_nobody(
    unpatched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(supernode.HOME, str(tmp_path))
    (tmp_path / supernode.TAKEN).write_bytes(b"\xff\xff\xff")
    supernode.answer_what_was_taken()
    (tmp_path / supernode.TAKEN).unlink()
    (tmp_path / supernode.TAKEN).mkdir()
    assert start_client_internal._pull_and_store_message(**given()) == 7


@pytest.mark.parametrize("ours", [False, True])
def test_a_reply_whose_worker_died_over_it_is_given_up(ours: bool, unpatched: Any) -> None:
    if ours:
        supernode.give_up_half_replies()
    store = InMemoryObjectStore()
    state = InMemoryNodeState(store)
    asked, task = question(state), state.create_task(TaskType.CLIENT_APP, run_id=1, fab_hash="")
    reply = Message(RecordDict({"arrays": ArrayRecord({"a": Array(np.ones(3))})}), reply_to=asked)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    objects = get_all_nested_objects(reply)
    names = [*objects]
    store.preregister(1, get_object_tree(reply))
    state.store_message(reply)
    store.put(names[0], objects[names[0]].deflate())
    sent: list[str] = []

    def send() -> None:
        start_client_internal._push_messages(
            state=state,
            object_store=store,
            send=lambda *message: (set(names), "session"),
            push_object=lambda run, session, name, content: sent.append(name),
        )

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(1.5)
    assert thread.is_alive()  # the rest may come
    state.finish_task(task or 0, SubStatus.FAILED, "")
    thread.join(1.5)
    assert thread.is_alive() is not ours
    for name in names[1:]:  # let Flower's end
        if not ours:
            store.put(name, objects[name].deflate())
    thread.join(5)
    assert not thread.is_alive()
    assert len(store) == 0

"""What a site's SuperNode needs set otherwise in Flower.

It asks more often, hands on what it has at once, and leaves no message without an answer.

A question that a site has taken and never answers costs the server `strategy.timeout`. Flower answers in the place of a
worker that shows no sign of life for a minute, and leaves open what it could not fetch, whose worker died before it had
it, or what it had itself when it was killed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fedbrats.files import replacing

SOONEST, LATEST = 0.2, 3.0  # seconds between two questions for work
SHARE = 0.1  # of the time that it has waited already
REPLY = 0.05  # seconds between two looks whether the reply is there, which cost nothing
HOME = "FLWR_HOME"  # of the environment: where Flower keeps its own; not set in a container without a storage
TAKEN = "question"  # file there: what was asked and is not answered yet

log = logging.getLogger(__name__)


def ask_more_often() -> None:
    """Let the SuperNode of this process ask for work `SOONEST` after the last, then ever more seldom until `LATEST`.

    `flwr.supernode.start_client_internal` sleeps 3 s when there is none and 0.5 s while a reply is not ready, and has
    no option for it. The module is given another clock: what is lost by asking late stays below `SHARE` of the time
    that has passed anyway. Every question costs the SuperLink some milliseconds, which many sites that have nothing to
    do would add up to all its time.
    """
    from flwr.supernode import start_client_internal as module

    began = time.monotonic()

    def sleep(seconds: float) -> None:
        nonlocal began
        if seconds < 1.0:  # a reply is waited for
            time.sleep(REPLY)
            began = time.monotonic()
        else:
            time.sleep(min(max(SHARE * (time.monotonic() - began), SOONEST), LATEST))

    module.time = SimpleNamespace(sleep=sleep)


def hand_on_at_once() -> None:
    """Let the worker have each object of a message as soon as the SuperNode of this process has it.

    Flower stores them when the last has come, and the worker waits until then. It also hashes all of them to compare
    them with their names, what the worker hands over, too. The SuperLink does that again with a reply; a question and
    its names come from the same server, and TLS sees that they arrive as they were sent.
    """
    from flwr.supercore.inflatable.inflatable_utils import validate_object_content
    from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
    from flwr.supernode import start_client_internal as module

    fetch = module._pull_and_store_message
    InMemoryObjectStore.__init__.__defaults__ = (False,)  # verify

    def fetched(**given: Any) -> int | None:
        pull, store, come = given["pull_object"], given["object_store"], set[str]()

        def pull_object(run_id: int, name: str) -> Any:
            content = pull(run_id, name)
            validate_object_content(content)
            store.put(name, content)
            come.add(name)
            return content

        stored = SimpleNamespace(
            preregister=store.preregister,
            delete=store.delete,
            put=lambda name, content: None if name in come else store.put(name, content),
        )
        run: int | None = fetch(**{**given, "pull_object": pull_object, "object_store": stored})
        return run

    module._pull_and_store_message = fetched


def answer_what_was_taken() -> None:
    """Let the SuperNode of this process answer a message that it cannot fetch, or had when it was killed.

    Nothing is answered where the run of the message is over. Flower takes that for no `Exception` but a
    `BaseException`: the task stays, and whoever is given it waits for the content for ever.
    """
    from flwr.supercore.run import RunNotRunningException
    from flwr.supernode import start_client_internal as module

    fetch, send = module._pull_and_store_message, module._push_messages
    file = Path(os.environ[HOME]) / TAKEN if HOME in os.environ else None

    def fetched(**given: Any) -> int | None:
        if file and (left := _read(file)):
            return _give_up(left, given, "SuperNode was started anew")
        messages, broken = list[Any](), list[str]()

        def receive() -> Any:
            found = given["receive"]()
            messages.extend(found[:1] if found else ())
            return found

        def failing(ask: Callable[..., Any]) -> Callable[..., Any]:
            def asked(*arguments: Any) -> Any:
                try:
                    return ask(*arguments)
                except RunNotRunningException as error:
                    raise RuntimeError("its run is over") from error
                except Exception as error:
                    broken.append(type(error).__name__)
                    raise

            return asked

        asks = {name: failing(given[name]) for name in ("pull_object", "confirm_message_received")}
        run = fetch(**{**given, **asks, "receive": receive})
        if run is None and broken:
            return _give_up(messages[0], given, f"message could not be fetched ({broken[0]})")
        if file and run is not None:
            _write(file, messages[0])
        return run

    def sent(**given: Any) -> None:
        send(**given)
        if file:
            file.unlink(missing_ok=True)

    module._pull_and_store_message, module._push_messages = fetched, sent


def give_up_half_replies() -> None:
    """Let the SuperNode of this process give up a reply whose worker ended before it had handed over all of it.

    Flower sends a reply as it comes, and waits for the rest of it for ever. The server learns from the SuperLink that
    it is incomplete, some minute later.
    """
    from flwr.common.constant import Status
    from flwr.supernode import start_client_internal as module

    send = module._push_messages

    def sent(**given: Any) -> None:
        state, store = given["state"], given["object_store"]

        def get(name: str) -> bytes | None:
            content: bytes | None = store.get(name)
            if content == b"" and all(task.status.status == Status.FINISHED for task in state.get_tasks()):
                content = store.get(name)  # it may have come before the task was over
                if content == b"":
                    raise RuntimeError("the worker ended before it had handed over all of its reply")
            return content

        view = SimpleNamespace(get=get, get_object_tree=store.get_object_tree, delete=store.delete)
        send(**{**given, "object_store": view})

    module._push_messages = sent


def _give_up(message: Any, given: dict[str, Any], why: str) -> int:
    """Have an error sent in answer to `message`; returns its run."""
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode
    from flwr.supernode import start_client_internal as module

    log.warning("message %s is given up: its %s", message.metadata.message_id, why)
    reply = Message(Error(ErrorCode.CLIENT_APP_CRASHED, f"its {why}"), reply_to=message)
    module._insert_message(reply, given["state"], given["object_store"])
    return int(message.metadata.run_id)


def _write(file: Path, message: Any) -> None:
    """Note a message without its content; a site whose disk is full still answers."""
    from flwr.common.serde import message_to_proto

    try:
        with replacing(file, private=True) as unfinished:
            unfinished.write_bytes(message_to_proto(message).SerializeToString())
    except OSError as error:
        log.warning("what was asked is not noted: %s", error)


def _read(file: Path) -> Any:
    """What `_write` noted, once; None if there is nothing."""
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import Message as Proto
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = file.read_bytes()
        file.unlink()
        return message_from_proto(Proto.FromString(content))
    except (OSError, ValueError, DecodeError):
        return None


def answer_failed_tasks() -> None:
    """Let the SuperNode of this process answer a message whose task failed with an error, at once.

    Flower does so only where the task showed no sign of life for a minute after it had fetched its message. Where it
    failed before, or failed by what was said of it, the SuperNode would wait for the reply for ever.
    """
    from flwr.common.constant import SubStatus
    from flwr.supercore.constant import TaskType
    from flwr.supernode.nodestate.in_memory_nodestate import CLIENT_APP_CRASHED_ERROR, InMemoryNodeState

    finish, reply = InMemoryNodeState.finish_task, InMemoryNodeState._store_error_replies

    def finish_task(self: Any, task_id: int, sub_status: str, details: str) -> bool:
        finished = finish(self, task_id, sub_status, details)
        if finished and sub_status == SubStatus.FAILED:
            runs = {t.run_id for t in self.get_tasks(task_ids=[task_id]) if t.type == TaskType.CLIENT_APP}
            self._store_error_replies(runs, CLIENT_APP_CRASHED_ERROR)
        return finished

    def store_error_replies(self: Any, run_ids: set[int], error: Any) -> None:
        with self.lock_msg_store:
            for entry in self.msg_store.values():
                about = entry.message.metadata
                entry.is_retrieved |= about.run_id in run_ids and not about.reply_to_message_id
        reply(self, run_ids, error)

    InMemoryNodeState.finish_task = finish_task
    InMemoryNodeState._store_error_replies = store_error_replies

"""A reply counts for the question, round, study and node that it answers, and once; the rest is refused and counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.federation.server import round_loop
from fedbrats.federation.server.replies import BadReply, check_train_reply
from fedbrats.runs.rounds import read_rounds
from fedbrats.runs.taking_part import strangers, taking_part
from tests.federation.toy import ARRAYS, EXPECTED, FakeGrid, federation, train_reply
from tests.federation.toy_rounds import Answer, constant, good, members, rows_of, sends, values

SHORT = FedAvg(timeout=0.3)


class Crowd(FakeGrid):
    """Hands out with the first reply to node 3 (site B) what `more` makes of the message and its reply."""

    def __init__(self, handlers: list[Answer], more: Callable[[Message, Message], list[Message]]) -> None:
        super().__init__(handlers)
        self.more = more

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        (message_id,) = message_ids
        asked, found = self.waiting[message_id], super().pull_messages([message_id])
        return self.more(asked, found[0]) if asked.metadata.dst_node_id == 3 and found else found


def with_facts(message: Message, **changed: object) -> Message:
    """The message with other metadata, as a forger or a mistake would have it."""
    for name, value in changed.items():
        message.metadata.__dict__[f"_{name}"] = value
    return message


def served(folder: Path, more: Callable[[Message, Message], list[Message]], rounds: int = 1) -> list[dict]:
    fed = federation(folder, members(), algorithm=SHORT, rounds=rounds)
    round_loop.serve(Crowd(good(), more), fed)
    assert values(fed) == pytest.approx(
        [2.0, 2.0]
    )  # (1 * 8 + 2 * 4 + 5 * 0) / 8, as if nothing had come besides
    return refused(folder)


def refused(folder: Path) -> list[dict]:
    return [row for row in rows_of(folder) if row["phase"] == "refused"]


def other(asked: Message) -> Message:
    """A reply of B that would spoil the mean."""
    return train_reply(constant(1e6), to=asked, **{"num-examples": 2})


FORGED: dict[str, tuple[dict[str, object], str, str]] = {
    "an earlier question": (
        {"reply_to_message_id": "0"},
        "B",
        "late reply to an earlier question (train of 1)",
    ),
    "another round": ({"group_id": "7"}, "B", "reply to another question (train of 7)"),
    "another question": ({"message_type": "evaluate.validate"}, "B", "reply to another question"),
    "another study": ({"run_id": 77}, "B", "reply of another study"),
    "another site": ({"src_node_id": 4}, "C", "reply by another node than the one that was asked"),
    "an unknown node": ({"src_node_id": 99}, "", "reply by another node than the one that was asked"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_answers_something_else_is_refused_by_name_and_the_true_reply_counts(
    kind: str, tmp_path: Path
) -> None:
    changed, site, reason = FORGED[kind]
    (row,) = served(tmp_path, lambda asked, reply: [with_facts(other(asked), **changed), reply])
    assert (row["round"], row["site"]) == ("1", site)
    assert row["status"].startswith(f"failed: {reason}")
    assert strangers(read_rounds(tmp_path)) == (not site)


def test_of_two_answers_the_first_counts(tmp_path: Path) -> None:
    (row,) = served(tmp_path, lambda asked, reply: [reply, other(asked)])
    assert row["status"] == "failed: second reply to one question (train)"
    (part,) = [part for part in taking_part(read_rounds(tmp_path)) if part.site == "B"]
    assert (part.missed, part.refused) == (0, (("second reply to one question", 1),))


def test_a_reply_of_the_last_round_is_not_taken_for_one_of_this(tmp_path: Path) -> None:
    """B answers in the second round with its message of the first: 8 / 7 is the mean of A and C, (1 * 8 + 0) / 6."""
    kept: list[Message] = []

    def again(message: Message) -> Message:
        kept.append(sends(4.0, 2)(message))
        return kept[0]

    handlers = good()
    handlers[1] = again
    fed = federation(tmp_path, members(), algorithm=SHORT, rounds=2)
    round_loop.serve(FakeGrid(handlers), fed)
    assert values(fed) == pytest.approx([8 / 6, 8 / 6])
    rows = rows_of(tmp_path)
    mine = [row for row in rows if row["site"] == "B" and row["round"] == "2"]
    assert {row["phase"] for row in mine} == {"refused", "train"}
    assert all("late reply to an earlier question" in r["status"] for r in mine if r["phase"] == "refused")
    assert mine[-1]["status"] == "failed: no reply within 0.3 s (strategy.timeout)"


def test_what_the_superlink_says_of_a_site_belongs_to_the_site(tmp_path: Path) -> None:
    """Flower signs it with the SuperLink's own node, 1."""

    def gone(message: Message) -> Message:
        error = Message(Error(code=5, reason="Node Unavailable"), reply_to=message)
        return with_facts(error, src_node_id=1)

    handlers = good()
    handlers[1] = gone
    fed = federation(tmp_path, members(), algorithm=SHORT)
    round_loop.serve(FakeGrid(handlers), fed)
    (row,) = [row for row in rows_of(tmp_path) if row["site"] == "B"]
    assert row["status"] == "failed: site not reachable: Node Unavailable"
    (part,) = [part for part in taking_part(read_rounds(tmp_path)) if part.site == "B"]
    assert part.reasons == "1 x not reachable"
    assert refused(tmp_path) == []


# What is in it, after Flower has taken it to pieces and put it together again


def sent(message: Message) -> Message:
    """The message as it comes out of Flower's wire format: objects under the SHA-256 of their bytes."""
    contents = {name: found.deflate() for name, found in get_all_nested_objects(message).items()}
    found = inflate_object_from_contents(message.object_id, contents)
    assert isinstance(found, Message)
    return found


def with_bytes(data: bytes, shape: tuple[int, ...] = (4, 2), stype: str = "numpy.ndarray") -> Message:
    record = ArrayRecord({n: Array(t.numpy()) for n, t in ARRAYS.items()})
    record["w"] = Array("float32", shape, stype, data)
    return train_reply(record)


def npy(array: np.ndarray) -> bytes:
    return Array(array).data


HOSTILE = {
    "NaN": lambda: train_reply({**ARRAYS, "b": torch.full((4,), float("nan"))}),
    "another shape": lambda: train_reply({**ARRAYS, "w": torch.ones(8)}),
    "pickle": lambda: with_bytes(npy(np.zeros((4, 2), np.float32)).replace(b"'<f4'", b"'|O' ")),
    "huge header": lambda: with_bytes(
        npy(np.zeros((4, 2), np.float32)).replace(b"(4, 2)", b"(10**9,)"), shape=(10**9, 10**9)
    ),
    "truncated": lambda: with_bytes(npy(np.zeros((4, 2), np.float32))[:-3]),
    "empty": lambda: with_bytes(b""),
    "numbers without end": lambda: train_reply(**{f"n{i}": i for i in range(1000)}),
    "arrays without end": lambda: train_reply(
        ArrayRecord({f"a{i}": Array("float32", (1,), "numpy.ndarray", b"x") for i in range(10_001)})
    ),
}


def test_what_flower_cannot_put_together_is_the_fault_of_its_site(tmp_path: Path) -> None:
    """An array whose description is no JSON any more, in the pieces that Flower takes from the wire."""

    def broken(asked: Message, reply: Message) -> list[Message]:
        contents = {name: found.deflate() for name, found in get_all_nested_objects(reply).items()}
        (name,) = [name for name, part in contents.items() if part.startswith(b"ArrayRecord")]
        head, _, body = contents[name].partition(b"\x00")
        contents[name] = head + b"\x00" + b"{" * len(body)
        return [inflate_object_from_contents(reply.object_id, contents)]  # type: ignore[list-item]

    fed = federation(tmp_path, members(), algorithm=SHORT)
    round_loop.serve(Crowd(good(), broken), fed)
    assert values(fed) == pytest.approx([8 / 6, 8 / 6])
    (row,) = [row for row in rows_of(tmp_path) if row["site"] == "B"]
    assert row["status"].startswith("failed: damaged reply: JSONDecodeError")
    (part,) = [part for part in taking_part(read_rounds(tmp_path)) if part.site == "B"]
    assert part.reasons == "1 x reply that cannot be used"


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_reply_is_refused_after_flowers_own_wire(kind: str) -> None:
    with pytest.raises(BadReply):
        check_train_reply(sent(HOSTILE[kind]()), EXPECTED, 5)


def test_a_good_reply_survives_flowers_own_wire() -> None:
    assert check_train_reply(sent(train_reply()), EXPECTED, 5).cases == 5


@pytest.mark.parametrize("what", ["array", "text"])
def test_no_memory_is_taken_for_a_reply_that_is_too_large(what: str) -> None:
    """200 MB where 32 bytes are expected: what is refused costs less than a hundredth of that."""
    if what == "array":
        message = with_bytes(npy(np.zeros(50_000_000, np.float32)))
    else:
        content = train_reply().content
        text = ConfigRecord({"reason": "x" * 200_000_000})
        message = Message(RecordDict({**content, "stopped": text}), reply_to=train_reply())
        assert isinstance(content["metrics"], MetricRecord)
    tracemalloc.start()
    with pytest.raises(BadReply):
        check_train_reply(message, EXPECTED, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000

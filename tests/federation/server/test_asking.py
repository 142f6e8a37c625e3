"""What the observer is told of a phase: who is asked, and whose replies are there before their turn."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from flwr.app import Message

from fedbrats.federation.server import round_loop
from tests.federation.toy import FakeGrid, Quiet, federation
from tests.federation.toy_rounds import Answer, good, members, sends


def late(answer: Answer, polls: int) -> Answer:
    """A site that answers when it is asked for the (`polls` + 1)th time."""
    asked = 0

    def handle(message: Message) -> Message | None:
        nonlocal asked
        asked += 1
        return answer(message) if asked > polls else None

    return handle


class Knowing(FakeGrid):
    """A grid that knows of the last site's reply from the beginning."""

    def arrived(self) -> Collection[str]:
        return {list(self.waiting)[-1]}


def asked_in_a_round(tmp_path: Path, kind: type[FakeGrid]) -> Quiet:
    handlers = [late(sends(8.0, 1), 3), *good()[1:]]
    fed = federation(tmp_path, members())
    round_loop.serve(kind(handlers), fed)
    assert isinstance(fed.observer, Quiet)
    return fed.observer


def test_every_phase_says_whom_it_asks(tmp_path: Path) -> None:
    found = asked_in_a_round(tmp_path, FakeGrid)
    assert found.phases == [(1, "train", [("federated", name) for name in "ABC"]), (1, "val", [])]
    assert found.seen == []  # this grid knows nothing, and nothing is made up


def test_replies_that_are_there_are_told_while_another_is_awaited(tmp_path: Path) -> None:
    found = asked_in_a_round(tmp_path, Knowing)
    assert found.seen == [{("federated", "C")}] * 3
    assert found.replies == [("federated", name, "train", True) for name in "ABC"]

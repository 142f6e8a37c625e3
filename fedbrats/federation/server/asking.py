"""How the server asks: one question to many sites, one checked answer after the other in a fixed order."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Memory
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.origin import Refuse, awaited, ignored, pulled
from fedbrats.federation.server.replies import BadReply
from fedbrats.federation.server.state import Federation, Member
from fedbrats.federation.wire import size_bytes, to_record
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import Model

POLL_SECONDS = 0.02  # for engines whose pull does not wait


class Usable(Protocol):
    """A reply that has been checked."""

    def columns(self) -> dict[str, Any]:
        """What it adds to its row of `rounds.csv`."""


@runtime_checkable
class KnowsArrivals(Protocol):
    """A Grid that can tell which replies are there without handing them out; Flower's own cannot."""

    def arrived(self) -> Collection[str]:
        """Ids of the messages that are answered and whose replies have not been pulled."""


R = TypeVar("R", bound=Usable)
R_co = TypeVar("R_co", bound=Usable, covariant=True)


@dataclass(frozen=True)
class Request:
    """One message to one site on behalf of one cohort."""

    cohort: Cohort
    site: str
    content: RecordDict


@dataclass(frozen=True)
class Question(Generic[R]):
    """What is asked, and what a good reply to it is.

    kind: of `questions`; phase: its name in `rounds.csv`; check: decodes a reply, raises BadReply where it cannot be
    used; counted: whether the bytes of the request count.
    """

    kind: str
    phase: str
    check: Callable[[Message, Request], R]
    counted: bool = True


@dataclass(frozen=True)
class Answer(Generic[R_co]):
    """What became of a request: its row of `rounds.csv` and, unless it is left out, the checked reply."""

    request: Request
    reply: R_co | None
    row: rounds.Row


def ask(
    grid: Grid, fed: Federation, question: Question[R], requests: Sequence[Request], round_: int
) -> Iterator[Answer[R]]:
    """Send all requests, then yield the answer to each in their order.

    A reply that does not come within `strategy.timeout`, or cannot be used, is left out with its reason in its row. One
    that nobody waits for (`origin.py`) gets a row of its own, of phase `rounds.REFUSED`.
    """
    fed.observer.phase_started(round_, question.phase, [(r.cohort.arm, r.site) for r in requests])
    timeout = fed.algorithm.timeout

    def waiting(arrived: Sequence[Request]) -> None:
        fed.observer.arrived([(r.cohort.arm, r.site) for r in arrived])

    def refuse(site: str, reason: str) -> None:
        row = rounds.row(round_, fed.cohorts[0].arm, site, rounds.REFUSED, f"failed: {reason}")
        rounds.append(fed.folder, [row])

    for request, message in replies_in_order(
        grid, requests, fed.members, question.kind, str(round_), timeout, waiting, refuse
    ):
        exchanges = request.cohort.federated
        values: dict[str, Any] = {"status": "ok"}
        if question.counted:
            values["bytes_down"] = size_bytes(request.content) if exchanges else 0
        reply: R | None = None
        try:
            reply = question.check(arrived(message, timeout), request)
            values |= reply.columns()
        except BadReply as error:
            values["status"] = f"failed: {error}"
        if "bytes_up" in values and not exchanges:
            values["bytes_up"] = 0
        row = rounds.row(round_, request.cohort.arm, request.site, question.phase, **values)
        seconds = row["seconds"] or 0.0
        fed.observer.reply(request.cohort.arm, request.site, question.phase, reply is not None, seconds)
        yield Answer(request, reply, row)


def replies_in_order(
    grid: Grid,
    requests: Sequence[Request],
    members: Mapping[str, Member],
    kind: str,
    group: str,
    timeout: float,
    waiting: Callable[[Sequence[Request]], None] | None = None,
    refuse: Refuse = ignored,
) -> Iterator[tuple[Request, Message | None]]:
    """Send all requests, then yield each with its reply in the order of the requests, None after the timeout.

    A reply is asked for only when its turn has come, so the caller holds one at a time whatever the number of sites.
    `waiting` is told again and again, while a reply is awaited, which others have come where the grid knows it;
    `refuse` of every reply that is not the one that is awaited.
    """
    names = {member.node: site for site, member in members.items()}
    messages = [
        Message(request.content, members[request.site].node, kind, ttl=timeout, group_id=group)
        for request in requests
    ]
    ids = list(grid.push_messages(messages))
    deadline = time.monotonic() + timeout
    for request, asked, message_id in zip(requests, messages, ids, strict=True):
        reply: Message | None = None
        while True:
            reply = awaited(pulled(grid, asked, message_id), asked.metadata, message_id, names, refuse)
            if reply is not None or time.monotonic() > deadline:
                break
            if waiting is not None and isinstance(grid, KnowsArrivals):
                there = grid.arrived()
                waiting([other for other, its in zip(requests, ids, strict=True) if its in there])
            time.sleep(POLL_SECONDS)
        yield request, reply


def arrived(message: Message | None, timeout: float) -> Message:
    """The reply that came within `timeout` seconds. Raises BadReply where none did."""
    if message is None:
        raise BadReply(f"no reply within {timeout:g} s (strategy.timeout)")
    return message


def model_requests(
    models: Mapping[str, Model],
    config: dict[str, Any],
    pairs: Sequence[tuple[Cohort, str]],
    by_arm: dict[str, dict[str, Any]] | None = None,
    beside: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> list[Request]:
    """One request per pair; sites that get the same model share its record, and what `by_arm` adds.

    `beside`: what travels beside the models, by arm.
    """
    added, more, records = by_arm or {}, beside or {}, dict[str, dict[str, Any]]()
    for arm in {c.arm: c for c, _ in pairs}:
        records[arm] = {"beside": to_record(more[arm])} if more.get(arm) else {}
        records[arm]["config"] = ConfigRecord({"arm": arm, **config, **added.get(arm, {})})
    given = {
        c.arm: records_given(c, models[c.arm].arrays, models[c.arm].memory, [s for of, s in pairs if of is c])
        for c in {c.arm: c for c, _ in pairs}.values()
    }
    return [Request(c, s, RecordDict({"arrays": given[c.arm][s], **records[c.arm]})) for c, s in pairs]


def records_given(
    cohort: Cohort, model: Arrays, memory: Memory, sites: Iterable[str]
) -> dict[str, ArrayRecord]:
    """The model that each of `sites` gets, by site; the same model is the same record."""
    versions = {site: cohort.algorithm.version(memory, site) for site in sites}
    made = {
        version: to_record(cohort.algorithm.given(model, memory, version))
        for version in dict.fromkeys(versions.values())
    }
    return {site: made[version] for site, version in versions.items()}

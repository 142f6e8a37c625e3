"""How the server asks: who is there, and one reply after the other in a fixed order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.federation.arms import Cohort
from fedbrats.federation.checkpoint import Model
from fedbrats.federation.exchange import Signature, fingerprint, to_record

POLL_SECONDS = 0.02  # for engines whose pull does not wait


class FederationError(RuntimeError):
    """A federation that cannot start or go on; the message says why."""


@dataclass(frozen=True)
class Member:
    """A site as it registered itself: how to reach it and how many cases it holds."""

    node: int
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Request:
    """One message to one site on behalf of one cohort."""

    cohort: Cohort
    site: str
    content: RecordDict


def replies_in_order(
    grid: Grid, requests: Sequence[Request], members: dict[str, Member], kind: str, group: str, timeout: float
) -> Iterator[tuple[Request, Message | None]]:
    """Send all requests, then yield each with its reply in the order of the requests, None after the timeout.

    A reply is asked for only when its turn has come, so the caller holds one at a time whatever the number of sites.
    """
    messages = [
        Message(request.content, members[request.site].node, kind, ttl=timeout, group_id=group)
        for request in requests
    ]
    ids = list(grid.push_messages(messages))
    deadline = time.monotonic() + timeout
    for request, message_id in zip(requests, ids, strict=True):
        reply: Message | None = None
        while True:
            reply = next(iter(grid.pull_messages([message_id])), None)
            if reply is not None or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        yield request, reply


def model_requests(
    models: Mapping[str, Model],
    config: dict[str, Any],
    pairs: Sequence[tuple[Cohort, str]],
    by_arm: dict[str, dict[str, Any]] | None = None,
    beside: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> list[Request]:
    """One request per pair; the sites of a cohort share one record of its model and what `by_arm` adds.

    `beside`: what travels beside the models, by arm.
    """
    added, more, records = by_arm or {}, beside or {}, dict[str, dict[str, Any]]()
    for arm in {c.arm: c for c, _ in pairs}:
        records[arm] = {"arrays": to_record(models[arm].arrays)}
        records[arm] |= {"beside": to_record(more[arm])} if more.get(arm) else {}
        records[arm]["config"] = ConfigRecord({"arm": arm, **config, **added.get(arm, {})})
    return [Request(c, site, RecordDict(records[c.arm])) for c, site in pairs]


def join(
    grid: Grid, expected: Signature, sites: Sequence[str], timeout: float, stays: Sequence[str] = ()
) -> dict[str, Member]:
    """Ask every node which site it is and what it holds.

    All must have the arrays `expected` and keep `stays` of them at home.

    Raises:
        FederationError: a site is missing, joins twice, answers with an error or with facts that cannot be used, or
            has other arrays than the server.
    """
    nodes = {str(node): Member(node, 0, 0, 0) for node in grid.get_node_ids()}
    requests = [Request(Cohort("join", ()), name, RecordDict()) for name in nodes]
    wanted, members = fingerprint(expected, stays), {}
    for _, reply in replies_in_order(grid, requests, nodes, MessageType.QUERY, "join", timeout):
        if reply is None or reply.has_error():
            reason = "no reply" if reply is None else reply.error.reason
            raise FederationError(f"a site could not join: {reason}")
        facts: Any = reply.content.get("facts", {})
        site, counts = facts.get("site"), [facts.get(split) for split in ("train", "val", "test")]
        if not isinstance(site, str) or not all(isinstance(n, int) and n >= 0 for n in counts):
            raise FederationError(f"a site joined without its name and case counts: {dict(facts)}")
        if facts.get("arrays") != wanted:
            raise FederationError(
                f"site {site} has another network than the server, or keeps other arrays at home: check `model` and "
                "`personalization`."
            )
        if site in members:
            raise FederationError(f"two nodes joined as site {site}")
        members[site] = Member(reply.metadata.src_node_id, *counts)
    missing = sorted(set(sites) - members.keys())
    if missing:
        raise FederationError(f"sites did not join: {', '.join(missing)}")
    return members

"""The first question: which node is which site, what it holds, and whether it has the same network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from fedbrats.arrays import Signature, fingerprint
from fedbrats.config.names import LONGEST, fault
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Request, replies_in_order
from fedbrats.federation.server.state import FederationError, Member


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
    for _, reply in replies_in_order(grid, requests, nodes, questions.JOIN, "join", timeout):
        if reply is None or reply.has_error():
            reason = "no reply" if reply is None else reply.error.reason
            raise FederationError(f"a site could not join: {reason}")
        facts: Any = reply.content.get("facts", {})
        site, counts = facts.get("site"), [facts.get(split) for split in ("train", "val", "test")]
        if not isinstance(site, str) or not all(isinstance(n, int) and n >= 0 for n in counts):
            raise FederationError(f"a site joined without its name and case counts: {dict(facts)}")
        if reason := fault(site):
            raise FederationError(f"a site joined as {site[:LONGEST]!r}, a name that {reason}")
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

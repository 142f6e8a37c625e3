"""The first question: which node is which site, what it holds, and whether it has the same network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedbrats.algorithms.fedavg import MOST_CASES
from fedbrats.arrays import Signature, fingerprint
from fedbrats.config.names import LONGEST, fault, shown
from fedbrats.config.versions import other_versions
from fedbrats.federation import questions
from fedbrats.federation.arms import POOLED_SITE, Cohort
from fedbrats.federation.server.asking import Request, replies_in_order
from fedbrats.federation.server.replies import REASON_LENGTH
from fedbrats.federation.server.state import FederationError, Member

log = logging.getLogger(__name__)


def join(
    grid: Grid,
    expected: Signature,
    sites: Sequence[str],
    timeout: float,
    stays: Sequence[str] = (),
    most_cases: int = MOST_CASES,
    used: Mapping[str, int] | None = None,
    versions: Mapping[str, str] | None = None,
    registered: Mapping[int, str] | None = None,
) -> dict[str, Member]:
    """Ask every node which site it is and what it holds.

    All must have the arrays `expected` and keep `stays` of them at home. `most_cases` may be registered for a split,
    as a site weighs with its number of cases; for the pooled site, which holds those of all, as many for each site.
    `used`: rounds of this run in which a reply of a private site was used, by site; its ledger must know of as many.
    `versions`: of the server's packages, which the sites must have too; None takes any.
    `registered`: in a deployment, the site whose key each node has shown; it must call itself so.

    Raises:
        FederationError: a site is missing, calls itself otherwise than its key is registered, joins twice or is none of
            `sites`, answers with an error or with facts that cannot be used, has other arrays or versions than the
            server, or a ledger that knows of fewer rounds than were used; or no site has a training case.
    """
    nodes = {str(node): Member(node, 0, 0, 0) for node in grid.get_node_ids()}
    requests = [Request(Cohort("join", ()), name, RecordDict()) for name in nodes]
    wanted, members = fingerprint(expected, stays), {}
    for _, reply in replies_in_order(grid, requests, nodes, questions.JOIN, "join", timeout):
        node, site, counts, facts = _facts(reply)
        most = most_cases * (len(sites) if site == POOLED_SITE else 1)
        if max(counts) > most:
            raise FederationError(
                f"site {site} registered {max(counts)} cases, more than strategy.max_cases={most_cases}: with so many "
                "it would decide every mean; raise it if that is true."
            )
        _check_versions(site, facts, versions or {})
        if facts.get("arrays") != wanted:
            raise FederationError(
                f"site {site} has another network than the server, or keeps other arrays at home: check `model` and "
                "`personalization`."
            )
        _check_rounds(site, facts.get("rounds"), (used or {}).get(site, 0))
        if registered is not None and registered.get(node) != site:
            raise FederationError(
                f"the key of site {registered.get(node)} is used by one that calls itself {site}"
            )
        if site in members:
            raise FederationError(f"two nodes joined as site {site}")
        withheld = str(facts.get("withheld", ""))[:REASON_LENGTH]
        if withheld:
            log.warning("site %s keeps at home: %s", site, shown(withheld))
        members[site] = Member(node, *counts, withheld=withheld)
    _check_present(sites, members)
    return members


def _facts(reply: Message | None) -> tuple[int, str, list[int], Any]:
    """Node, name, numbers of cases (training, validation, test) and all else that a site says of itself."""
    if reply is None or reply.has_error():
        reason = "no reply" if reply is None else reply.error.reason
        raise FederationError(f"a site could not join: {reason}")
    facts: Any = reply.content.get("facts", {})
    site, counts = facts.get("site"), [facts.get(split) for split in ("train", "val", "test")]
    if not isinstance(site, str) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise FederationError(f"a site joined without its name and case counts: {dict(facts)}")
    if reason := fault(site):
        raise FederationError(f"a site joined as {site[:LONGEST]!r}, a name that {reason}")
    return reply.metadata.src_node_id, site, counts, facts


def _check_present(sites: Sequence[str], members: Mapping[str, Member]) -> None:
    missing, strangers = sorted(set(sites) - members.keys()), sorted(members.keys() - set(sites))
    if missing:
        raise FederationError(f"sites did not join: {', '.join(missing)}")
    if strangers:
        raise FederationError(f"sites joined that are not of this federation: {', '.join(strangers)}")
    if not any(member.train for member in members.values()):
        raise FederationError("no site registered a training case")


def _check_versions(site: str, facts: Mapping[str, Any], ours: Mapping[str, str]) -> None:
    if others := other_versions(facts, ours):
        said = ", ".join(f"{name} {theirs[:LONGEST]!r} instead of {here}" for name, theirs, here in others)
        raise FederationError(
            f"site {site} has other versions than the server: {said}. Install the server's there, or start the study "
            "with run.versions=any if the results may differ."
        )


def _check_rounds(site: str, counted: Any, used: int) -> None:
    if used and not (isinstance(counted, int) and counted >= used):
        raise FederationError(
            f"site {site}: its ledger knows of {counted or 0} rounds of this run, but replies of {used} were used; it "
            "was deleted or replaced. Restore it at the site, or the epsilon would be too small."
        )

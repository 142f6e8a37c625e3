"""Before the first question of a study: its sites connect, take its configuration, prepare themselves and approve."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Request, replies_in_order
from fedbrats.federation.server.state import FederationError, Member

UNAVAILABLE = (5, 8)  # flwr.common.constant.ErrorCode: the node is away, its process died; it may come back
PAUSE = 2.0  # seconds between two looks at who is there

log = logging.getLogger(__name__)


def prepare_sites(
    grid: Grid,
    online: Callable[[], Mapping[int, str]],
    sites: list[str],
    study: tuple[str, str],
    timeout: float,
    patience: float,
    say: Callable[[str], None],
) -> dict[int, str]:
    """Have every site prepare itself, as soon as it is there; returns node id -> site when all are ready.

    Args:
        grid: that reaches the sites.
        online: the nodes that are connected, with the site that each is registered as.
        sites: that must be ready.
        study: its configuration as text, and the SHA-256 of that.
        timeout: seconds that a site may take to prepare itself.
        patience: seconds until all must be ready.
        say: told who is waited for, whenever that changes.

    Raises:
        FederationError: a site refuses, fails to prepare itself, or calls itself otherwise than it is registered; not
            all are ready in time.
    """
    end, ready, told, waiting = time.monotonic() + patience, dict[int, str](), "", dict[str, str]()
    while True:
        there = {node: site for node, site in online().items() if site in sites}
        ready = {node: site for node, site in ready.items() if node in there}
        fresh = {site: node for node, site in there.items() if node not in ready}
        for site, state in _ask(grid, fresh, study, timeout).items():
            waiting[site] = "approval at the site" if state else ""
            if state == questions.READY:
                ready[fresh[site]] = site
        missing = {
            site: waiting.get(site, "") if site in fresh else ""
            for site in sites
            if site not in ready.values()
        }
        if not missing:
            return ready
        text = "waiting for " + ", ".join(
            f"{site} ({what or 'connection'})" for site, what in sorted(missing.items())
        )
        if text != told:
            say(text)
            told = text
        if time.monotonic() > end:
            raise FederationError(f"not all sites were ready in time: {text}")
        time.sleep(PAUSE)


def _ask(grid: Grid, nodes: Mapping[str, int], study: tuple[str, str], timeout: float) -> dict[str, str]:
    """What these sites (name -> node) say, READY or WAITING; "" where one went away meanwhile."""
    text, sha256 = study
    content = RecordDict({"study": ConfigRecord({"text": text, "sha256": sha256})})
    members = {site: Member(node, 0, 0, 0) for site, node in nodes.items()}
    requests = [Request(Cohort("prepare", ()), site, content) for site in sorted(nodes)]
    found = {}
    for request, reply in replies_in_order(grid, requests, members, questions.PREPARE, "prepare", timeout):
        found[request.site] = _state(request.site, reply, sha256)
    return found


def _state(site: str, reply: Message | None, sha256: str) -> str:
    if reply is None or (reply.has_error() and reply.error.code in UNAVAILABLE):
        return ""
    if reply.has_error():
        raise FederationError(f"site {site} did not prepare itself: {reply.error.reason}")
    facts: Any = reply.content.get("facts", {})
    if facts.get("site") != site:
        called = str(facts.get("site"))[:60]
        raise FederationError(f"the key of site {site} is used by one that calls itself {called!r}")
    if facts.get("sha256") != sha256 or facts.get("state") not in (questions.READY, questions.WAITING):
        raise FederationError(f"site {site} answered for another study: {dict(facts)!s:.200}")
    return str(facts["state"])

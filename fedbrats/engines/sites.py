"""What both engines share: node ids and contexts of the sites, one site's answer, error replies."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
SERVER_NODE = 1
FIRST_SITE_NODE = 2  # site i of the list is node i + 2

# Flower's numbers (flwr.common.constant.ErrorCode); written out because that module is not public
CLIENT_APP_RAISED_EXCEPTION = 2
CLIENT_APP_CRASHED = 8

REASON_LENGTH = 2000  # characters

log = logging.getLogger(__name__)


def node_configs(sites: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Node id -> node config of every site, in the order of `sites`.

    Raises:
        ValueError: no site, or two sites of one name.
    """
    if not sites:
        raise ValueError("a federation needs at least one site")
    if len(set(sites)) < len(sites):
        raise ValueError(f"site names must differ, got {list(sites)}")
    return {
        FIRST_SITE_NODE + i: {"partition-id": i, "num-partitions": len(sites), "site": site}
        for i, site in enumerate(sites)
    }


def new_context(node: int, node_config: Mapping[str, Any] | None = None) -> Context:
    """A Flower Context with empty state."""
    return Context(
        run_id=RUN_ID, node_id=node, node_config=dict(node_config or {}), state=RecordDict(), run_config={}
    )


def set_identity(node: int) -> None:
    """Tell Flower who speaks in this process; without it no Message can be made."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, node


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message the id that Flower's SuperLink would give it (there is no public setter)."""
    message.metadata.__dict__["_message_id"] = message_id


def error_reply(message: Message, code: int, reason: str) -> Message:
    """An error reply to `message`, its reason cut to 2000 characters."""
    reply = Message(Error(code=code, reason=reason[:REASON_LENGTH]), reply_to=message)
    set_message_id(reply, f"{message.metadata.message_id}-reply")
    return reply


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """The site's reply to `message`; whatever the ClientApp raises becomes an error reply."""
    try:
        reply = app(message, context)
        if not isinstance(reply, Message) or (
            reply.metadata.reply_to_message_id != message.metadata.message_id
        ):
            raise TypeError(f"the ClientApp returned {type(reply).__name__}, not a reply to its message")
    except (Exception, SystemExit) as error:
        log.debug("site %s failed", context.node_config.get("site"), exc_info=True)
        return error_reply(message, CLIENT_APP_RAISED_EXCEPTION, _describe(error))
    set_message_id(reply, f"{message.metadata.message_id}-reply")
    return reply


def _describe(error: BaseException) -> str:
    """Type, message and the innermost line of an exception; the line survives a message that is too long."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}"[: REASON_LENGTH - len(where)] + where


def arrays_in(content: RecordDict) -> list[ArrayRecord]:
    """The ArrayRecords of a message.

    Not `content.array_records`: that ties content and arrays into a reference cycle, and models of past rounds then
    fill the memory until the garbage collector happens to run.
    """
    return [record for record in content.values() if isinstance(record, ArrayRecord)]


def assign(sites: Sequence[str], load: Mapping[str, float] | None, workers: int) -> list[list[int]]:
    """Share sites among workers by longest processing time first (Graham 1969).

    The heaviest site goes first, each to the worker with the least load so far; ties go to the earlier site
    and the earlier worker, so the result depends on nothing else.

    Args:
        sites: names.
        load: expected work of each site in any unit; None takes all as equal.
        workers: number of worker processes, at least 1.

    Returns:
        Positions in `sites` for each worker, ascending; no worker is empty (so there may be fewer than
        `workers`).

    Raises:
        ValueError: `load` lacks a site.
    """
    missing = [site for site in sites if load is not None and site not in load]
    if missing:
        raise ValueError(f"no load given for {', '.join(missing)}")
    work = [1.0 if load is None else float(load[site]) for site in sites]
    groups: list[list[int]] = [[] for _ in range(min(workers, len(sites)))]
    total = [0.0] * len(groups)
    for i in sorted(range(len(sites)), key=lambda i: (-work[i], i)):
        # by number of sites where the load is equal, so that sites without work are spread as well
        lightest = min(range(len(groups)), key=lambda w: (total[w], len(groups[w]), w))
        groups[lightest].append(i)
        total[lightest] += work[i]
    return [sorted(group) for group in groups]

"""Whose reply is it, and to which question: what Flower writes on a message, looked at before what is in it.

Flower's SuperLink gives every question a name that is the SHA-256 of all of it, round, time and arrays included, and a
reply carries that name, so that no reply to an old round fits a new one. It refuses most of what is refused here; the
server does not rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from flwr.app import Error, Message, Metadata
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedbrats.federation.server.replies import DAMAGED

# What taking a message to pieces raises where a site has sent something else under Flower's names.
UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError),
    *(RecursionError, DecodeError),
)
SUPERLINK = 1  # Flower's node that writes the error replies of sites that cannot be reached
LONGEST = 200  # characters of what Flower says
STRANGER = ""  # a node that is none of the sites

Refuse = Callable[[str, str], None]  # the site that sent it, or `STRANGER`, and the reason


def ignored(site: str, reason: str) -> None:
    """Refuse without telling anybody."""


def pulled(grid: Grid, asked: Message, message_id: str) -> list[Message]:
    """The replies to a question that are there.

    Flower puts a message together while it is pulled, and whatever that raises would end the run; here it is the site's
    own error.
    """
    try:
        return list(grid.pull_messages([message_id]))
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}"[:LONGEST]
        return [Message(Error(code=DAMAGED, reason=reason), reply_to=asked)]


def awaited(
    found: Iterable[Message], asked: Metadata, message_id: str, sites: Mapping[int, str], refuse: Refuse
) -> Message | None:
    """Of what was pulled, the reply that is waited for: the first one to this question by the node that was asked.

    Args:
        found: what was pulled.
        asked: of the question.
        message_id: of the question, as the grid named it.
        sites: by their node.
        refuse: is told of every other reply; nothing of it is looked at.
    """
    reply: Message | None = None
    for message in found:
        reason = _fault(message, asked, message_id)
        if reason or reply is not None:
            sender = sites.get(message.metadata.src_node_id, STRANGER)
            refuse(sender, reason or f"second reply to one question ({asked.message_type})")
        else:
            reply = message
    return reply


def _fault(message: Message, asked: Metadata, message_id: str) -> str:
    about = message.metadata
    if about.run_id != asked.run_id:
        return "reply of another study"
    if message.has_error() and about.src_node_id == SUPERLINK:
        return ""
    if about.src_node_id != asked.dst_node_id:
        return "reply by another node than the one that was asked"
    if about.reply_to_message_id != message_id:
        return f"late reply to an earlier question ({_short(about)})"
    if (about.message_type, about.group_id) != (asked.message_type, asked.group_id):
        return f"reply to another question ({_short(about)})"
    return ""


def _short(about: Metadata) -> str:
    """Question and round that a reply claims to be for."""
    claimed = f"{about.message_type} of {about.group_id}"
    return "".join(c if c.isprintable() else "?" for c in claimed[:60])

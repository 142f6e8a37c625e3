"""Flower's Grid: what all of ours share, those without a SuperLink, and the one that does all work in this process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedbrats.engines.sites import RUN_ID, answer, new_context, set_message_id


class AskedGrid(Grid):
    """What every Grid here does alike: messages go out by `push_messages`, replies come by `pull_messages`."""

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, then pull until all replies are there or `timeout` seconds have passed; in message order."""
        deadline = None if timeout is None else time.monotonic() + timeout
        ids = list(self.push_messages(messages))
        replies: dict[str, Message] = {}
        while len(replies) < len(ids) and (deadline is None or time.monotonic() < deadline):
            open_ids = [message_id for message_id in ids if message_id not in replies]
            replies |= {reply.metadata.reply_to_message_id: reply for reply in self.pull_messages(open_ids)}
        return [replies[message_id] for message_id in ids if message_id in replies]


class SiteGrid(AskedGrid):
    """The part of Flower's Grid that does not depend on where a site does its work.

    One rule goes beyond Flower's: a new message to a site supersedes what is still open with that site from
    earlier pushes. The old message is not started any more, and its reply is dropped.
    """

    def __init__(self, node_configs: Mapping[int, Mapping[str, Any]]) -> None:
        self._node_configs = dict(node_configs)
        self._numbers = itertools.count(1)
        self._run = Run.create_empty(RUN_ID)

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def get_node_ids(self) -> list[int]:
        """Node ids in site order; site i is node i + 2."""
        return list(self._node_configs)

    def _number(self, messages: Iterable[Message]) -> list[Message]:
        """Give each message its id. Raises ValueError for a node that is not there."""
        messages = list(messages)
        for message in messages:
            if message.metadata.dst_node_id not in self._node_configs:
                raise ValueError(
                    f"no site has node id {message.metadata.dst_node_id}; there are {self.get_node_ids()}"
                )
            set_message_id(message, str(next(self._numbers)))
        return messages


class InProcessGrid(SiteGrid):
    """All sites in this process; a site works when its reply is pulled, so one reply exists at a time."""

    def __init__(self, app: ClientApp, node_configs: Mapping[int, Mapping[str, Any]]) -> None:
        super().__init__(node_configs)
        self._app = app
        self._contexts: dict[int, Context] = {
            node: new_context(node, config) for node, config in node_configs.items()
        }
        self._waiting: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Note the messages; no site works yet. Returns their ids in order."""
        messages = self._number(messages)
        nodes = {message.metadata.dst_node_id for message in messages}
        self._waiting = {
            message_id: message
            for message_id, message in self._waiting.items()
            if message.metadata.dst_node_id not in nodes
        }
        self._waiting |= {message.metadata.message_id: message for message in messages}
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Let the first asked site that has not answered do its work; returns that one reply, or none."""
        for message_id in message_ids:
            if message_id in self._waiting:
                message = self._waiting.pop(message_id)
                context = self._contexts[message.metadata.dst_node_id]
                return [answer(self._app, _own_copy(message), context)]
        return []


def _own_copy(message: Message) -> Message:
    """The message with records of its own, because all messages of a round may share one RecordDict.

    ArrayRecords stay shared: they are large, and a site may recognise the round's model by identity. A site
    must therefore not change an ArrayRecord it received.
    """
    content = RecordDict(
        {
            name: record if isinstance(record, ArrayRecord) else record.copy()
            for name, record in message.content.items()
        }
    )
    return Message(content, metadata=message.metadata)

"""The Grid of a study: Flower's own over HTTP, asked in short steps, and only for the sites of the study."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import httpx
from flwr.app import Message

from fedbrats.engines.grids import AskedGrid
from fedbrats.engines.sites import error_reply, set_message_id
from fedbrats.federation import bundle

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between two questions for a reply
NODE_UNAVAILABLE = 5  # flwr.common.constant.ErrorCode, which is not public


def _begun(fetch: Callable[[], list[Message]]) -> Future[list[Message]]:
    """What `fetch` returns or raises, in a thread that nobody waits for at the end of the process."""
    future = Future[list[Message]]()

    def run() -> None:
        try:
            future.set_result(fetch())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class StudyGrid(AskedGrid):
    """The nodes of one study behind Flower's `HttpGrid`.

    Flower's own `send_and_receive` asks every 3 s and has all replies in memory at once. Here a reply is asked for by
    its message when its turn has come, so that an error reply, which Flower signs as the SuperLink's own, belongs to
    the site that was asked; the next one is fetched while the caller works on it, so that two are held at a time, not
    all. While the SuperLink is away nothing has come yet: whoever waits goes on waiting for as long as it would anyway,
    and Flower's client connects again.

    A message to a site that is not connected is answered by Flower with an error at once. Where all sites are needed,
    that would use up the rounds of the study within seconds: there, a question waits until all whom it goes to are
    connected.
    """

    def __init__(self, grid: Any, sleep: Callable[[float], None] = time.sleep) -> None:
        """`grid`: Flower's; `nodes` is empty until it is set, and no question waits until `wait_for_sites`."""
        self._grid, self._sleep = grid, sleep
        self._patience = 0.0
        self._say: Callable[[str], None] = log.warning
        self.nodes: dict[int, str] = {}  # node id -> site
        self._order: list[str] = []  # of the questions that were sent together
        self._ahead: dict[str, Future[list[Message]]] = {}  # by question, one at most
        self._refused: dict[str, Message] = {}  # error replies to messages that the SuperLink did not take

    def wait_for_sites(self, seconds: float, say: Callable[[str], None]) -> None:
        """Let every question wait so long at most for sites that are not connected; `say` is told of it."""
        self._patience, self._say = seconds, say

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def get_node_ids(self) -> list[int]:
        """The nodes of the study, by the names of their sites."""
        return sorted(self.nodes, key=lambda node: self.nodes[node])

    def online(self, keys: Mapping[bytes, str]) -> dict[int, str]:
        """Node id -> site of the nodes that are connected and registered with one of `keys` (PEM -> site)."""
        return {node: keys[key] for node, key in self._connected().items() if key in keys}

    def _connected(self) -> dict[int, bytes]:
        """Node id -> registered key of all that are connected; none while the SuperLink is away."""
        try:
            found = list(self._grid.get_nodes())
        except httpx.TransportError:
            return {}
        return {int(node.node_id): bytes(node.public_key) for node in found if node.status == "online"}

    def _wait_for(self, nodes: set[int]) -> None:
        end, said = time.monotonic() + self._patience, ""
        while time.monotonic() < end and (missing := nodes - set(self._connected())):
            names = ", ".join(sorted(self.nodes.get(node, str(node)) for node in missing))
            if names != said:
                self._say(f"waiting for {names}: not connected")
            said = names
            self._sleep(1.0)
        if said:
            self._say("the rounds go on")

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send the messages, one request each, so that sites begin while the next is sent; returns their ids."""
        messages = list(messages)
        self._wait_for({message.metadata.dst_node_id for message in messages})
        self._ahead.clear()
        self._order = [self._push(message) for message in bundle.sent(messages)]
        return list(self._order)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to `message_ids` that are there; waits `POLL` seconds where none is."""
        ids = list(message_ids)
        if refused := [self._refused.pop(message_id) for message_id in ids if message_id in self._refused]:
            return refused
        try:
            found = self._fetched(ids)
        except httpx.TransportError as error:
            log.warning("the SuperLink is away (%s)", type(error).__name__)
            found = []
        if not found:
            self._sleep(POLL)
        elif following := self._order[self._order.index(ids[-1]) + 1 :] if ids[-1] in self._order else []:
            self._ahead[following[0]] = _begun(lambda: self._fetch(following[:1]))
        return found

    def _fetched(self, ids: list[str]) -> list[Message]:
        ahead = self._ahead.pop(ids[0], None) if len(ids) == 1 else None
        return (ahead.result() if ahead else []) or self._fetch(ids)

    def _fetch(self, ids: list[str]) -> list[Message]:
        return [bundle.read(reply) for reply in self._grid.pull_messages(ids)]

    def _push(self, message: Message) -> str:
        """Send one message, again and again while it holds and the SuperLink is away."""
        end = time.monotonic() + message.metadata.ttl
        while True:
            try:
                message_id = next(iter(self._grid.push_messages([message])), None)
                break
            except httpx.TransportError as error:
                if time.monotonic() > end:
                    raise
                log.warning("the SuperLink is away (%s); a message waits", type(error).__name__)
                self._sleep(POLL)
        if message_id:
            return str(message_id)
        message_id = f"refused-{len(self._refused)}"
        set_message_id(message, message_id)
        self._refused[message_id] = error_reply(
            message, NODE_UNAVAILABLE, "the SuperLink does not know the site"
        )
        return message_id

"""How much one reply may fill of the SuperLink's memory and, as the server takes it as a whole, of the server's.

Flower stores whatever a registered site sends, piece by piece and without an end. Here a site may send, for the
question that it has, `TIMES` as much as the largest question of the study so far, and `SPARE`: the replies of a study
are a few times the model (masked numbers have twice the bits, Scaffold has two arrays for one), or they are short.

What a site sends is compared with its name (SHA-256) here, before Flower's lock, in which all other sites would wait
for it; what the study sends, which is a process of the SuperLink's own host, is not.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TIMES = 8
SPARE = 64 * 2**20  # bytes

log = logging.getLogger(__name__)


@dataclass
class Exchange:
    """What crossed for the question that a site has: objects down by their names, once each, and bytes up."""

    question: str = ""
    down: dict[str, int] = field(default_factory=dict)
    up: int = 0


class _Instead:
    """`state`, of which some functions are others: where it is asked anyway, no content is copied to be measured."""

    def __init__(self, state: Any, **others: Callable[..., Any]) -> None:
        self._state = state
        self.__dict__.update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


def bound_replies() -> None:
    """Let the SuperLink of this process store no more of a site's reply than that; the rest is refused and logged."""
    from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
    from flwr.superlink.servicer.fleet import fleet_handlers as module

    pull_messages, pull, push = module.pull_messages, module.pull_object, module.push_object
    exchanges = defaultdict[int, Exchange](Exchange)  # by node
    largest = defaultdict[int, int](int)  # bytes of a question, by run
    lock = threading.Lock()

    def pulled_messages(request: Any, state: Any, store: Any) -> Any:
        response = pull_messages(request=request, state=state, store=store)
        with lock:
            for message in response.messages_list:
                if exchanges[request.node.node_id].question != message.metadata.message_id:
                    exchanges[request.node.node_id] = Exchange(message.metadata.message_id)
        return response

    def pulled(request: Any, state: Any) -> Any:
        def get_object(run: int, name: str) -> Any:
            content = state.get_object(run, name)
            with lock:
                down = exchanges[request.node.node_id].down
                down[name] = len(content or b"")
                largest[run] = max(largest[run], sum(down.values()))
            return content

        return pull(request=request, state=_Instead(state, get_object=get_object))

    def pushed(request: Any, state: Any) -> Any:
        def store_object(run: int, session: Any, name: str, content: bytes) -> Any:
            node, limit = request.node.node_id, SPARE + TIMES * largest[run]
            with lock:
                exchanges[node].up += len(content)
                if exchanges[node].up > limit:
                    log.warning("node %s sends more than %d bytes for one reply: refused", node, limit)
                    return False
            if not _is_named(content, name):
                log.warning("node %s sends an object under the name of another: refused", node)
                return False
            return state.store_object(run, session, name, content)

        return push(request=request, state=_Instead(state, store_object=store_object))

    InMemoryObjectStore.__init__.__defaults__ = (False,)  # verify
    module.pull_messages, module.pull_object, module.push_object = pulled_messages, pulled, pushed


def _is_named(content: bytes, name: str) -> bool:
    """Whether an object is what its name says, and one of Flower's at all."""
    from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError, get_object_id
    from flwr.supercore.inflatable.inflatable_utils import validate_object_content

    try:
        validate_object_content(content)
    except UnexpectedObjectContentError:
        return False
    return bool(get_object_id(content) == name)

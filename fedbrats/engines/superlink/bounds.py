"""How much one reply may fill of the SuperLink's memory and, as the server takes it as a whole, of the server's.

Flower stores whatever a registered site sends, piece by piece and without an end. Here a site may send, for the
question that it has, `TIMES` as much as the largest question of the study so far, and `SPARE`: the replies of a study
are a few times the model (masked numbers have twice the bits, Scaffold has two arrays for one), or they are short.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flwr.proto.message_pb2 import PushObjectResponse

TIMES = 8
SPARE = 64 * 2**20  # bytes

log = logging.getLogger(__name__)


@dataclass
class Exchange:
    """What crossed for the question that a site has: objects down by their names, once each, and bytes up."""

    question: str = ""
    down: dict[str, int] = field(default_factory=dict)
    up: int = 0


def bound_replies() -> None:
    """Let the SuperLink of this process store no more of a site's reply than that; the rest is refused and logged."""
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
        response = pull(request=request, state=state)
        with lock:
            down = exchanges[request.node.node_id].down
            down[request.object_id] = response.ByteSize()  # its content would be copied to be measured
            largest[request.run_id] = max(largest[request.run_id], sum(down.values()))
        return response

    def pushed(request: Any, state: Any) -> Any:
        node, limit = request.node.node_id, SPARE + TIMES * largest[request.run_id]
        with lock:
            exchanges[node].up += request.ByteSize()
            if exchanges[node].up > limit:
                log.warning("node %s sends more than %d bytes for one reply: refused", node, limit)
                return PushObjectResponse(stored=False)
        return push(request=request, state=state)

    module.pull_messages, module.pull_object, module.push_object = pulled_messages, pulled, pushed

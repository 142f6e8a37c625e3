"""What a SuperLink needs set otherwise in Flower: a question whose way to its site was cut is handed out again.

Flower hands a message out once. Where the connection breaks before the SuperNode has it, nobody works on it, and the
server waits for the answer until `strategy.timeout`.
"""

from __future__ import annotations

import logging
import time
from typing import Any

log = logging.getLogger(__name__)


def hand_out_again() -> None:
    """Let the SuperLink of this process repeat its last message to a site that asks for work and never confirmed it.

    A SuperNode asks for one message at a time, and confirms it once it has all of it.
    """
    from flwr.superlink.servicer.fleet import fleet_handlers as module

    pull, push, confirm = module.pull_messages, module.push_messages, module.confirm_message_received
    handed: dict[int, Any] = {}  # node -> what it was answered last

    def pulled(request: Any, state: Any, store: Any) -> Any:
        node = request.node.node_id
        if (last := handed.pop(node, None)) is None or not _waited_for(last, state):
            last = pull(request=request, state=state, store=store)
        else:
            log.warning("node %s has not confirmed its message, and gets it again", node)
        if last.messages_list:
            handed[node] = last
        return last

    def pushed(request: Any, state: Any) -> Any:
        handed.pop(request.node.node_id, None)
        return push(request=request, state=state)

    def confirmed(request: Any, state: Any, store: Any) -> Any:
        handed.pop(request.node.node_id, None)
        return confirm(request=request, state=state, store=store)

    module.pull_messages, module.push_messages = pulled, pushed
    module.confirm_message_received = confirmed


def _waited_for(response: Any, state: Any) -> bool:
    """Whether somebody still waits for the answer to the message in `response`."""
    from flwr.common.constant import Status

    about = response.messages_list[0].metadata
    status = state.get_run_status({about.run_id}).get(about.run_id)
    return (
        status is not None and status.status == Status.RUNNING and about.created_at + about.ttl > time.time()
    )

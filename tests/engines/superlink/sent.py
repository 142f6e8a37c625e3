"""The messages that a site sent, put together again of the objects that crossed the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from flwr.app import Message
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedbrats.federation import bundle, questions


def messages(requests: Sequence[tuple[str, bytes]]) -> list[Message]:
    """The messages in the requests that a `Recorder` kept, in the order in which they were announced.

    The server asks for an object once: where another site has sent an equal one (an empty record), the message that
    holds it is left out.
    """
    pushed = [PushObjectRequest.FromString(body) for path, body in requests if path.endswith("/push-object")]
    contents = {request.object_id: request.object_content for request in pushed}
    announced = [
        PushMessagesRequest.FromString(body) for path, body in requests if path.endswith("/push-messages")
    ]
    trees = [tree for request in announced for tree in request.message_object_trees]
    whole = [tree for tree in trees if all(o.object_id in contents for o in iterate_object_tree(tree))]
    found = [inflate_object_from_contents(tree.object_id, dict(contents)) for tree in whole]
    return [bundle.read(cast(Message, message)) for message in found]


def trainings(requests: Sequence[tuple[str, bytes]]) -> list[Message]:
    """Those of them that answer a question for training with arrays."""
    found = [m for m in messages(requests) if m.metadata.message_type == questions.TRAIN and m.has_content()]
    return [message for message in found if "arrays" in message.content]

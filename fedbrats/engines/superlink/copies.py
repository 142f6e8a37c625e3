"""What Flower does several times to the bytes of an array, for which it has no options: copied and hashed once.

Of 252 MB each copy takes up to a third of a second, and a site makes some twenty of them in a round.
"""

from __future__ import annotations

import json
from typing import Any

from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_children_ids_from_object_content,
)


def copy_less() -> None:
    """Let this process copy the pieces of an array once when they are made and once when they are joined.

    A piece is hashed once, too: its bytes do not change, and Flower hashes it anew for every message that it is in
    and for every step on the way. The bytes on the wire are Flower's own.
    """
    ArrayChunk.is_dirty = property(lambda piece: False)
    ArrayChunk.deflate = _deflated
    inflate = Array.inflate.__func__

    def inflated(cls: type[Array], object_content: bytes, children: Any = None) -> Array:
        pieces = children or {}
        array: Array = inflate(cls, object_content, {name: ArrayChunk(memoryview(b"")) for name in pieces})
        names = get_object_children_ids_from_object_content(object_content)
        order = json.loads(get_object_body(object_content, Array))["arraychunk_ids"]
        array.data = b"".join([pieces[names[place]].data for place in order])
        return array

    Array.inflate = classmethod(inflated)


def _deflated(piece: ArrayChunk) -> bytes:
    head = f"{ArrayChunk.__qualname__}{HEAD_VALUE_DIVIDER}{HEAD_VALUE_DIVIDER}{len(piece.data)}"
    return b"".join((head.encode(), HEAD_BODY_DIVIDER, piece.data))

"""What Flower does several times to the bytes of an array, for which it has no options: copied and hashed once.

Of 252 MB each copy takes up to a third of a second, and a site makes some twenty of them in a round.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_children_ids_from_object_content,
)
from google.protobuf.message import Message  # type: ignore[import-untyped]

CONTENT = "object_content"  # the field of Flower's messages that holds the bytes of an object
BYTES = 2  # wire type of a field that begins with its length


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


def join_when_sent(module: ModuleType, name: str) -> None:
    """Let `module` make messages of its class `name` whose content is copied once: to where they are sent from.

    Protobuf copies it into the message, and again, several times over while its buffer grows, when that is sent.
    Fields of a message may stand in any order, so that who reads it finds what it would find otherwise.
    """
    kind = getattr(module, name)

    def made(**fields: Any) -> Any:
        content = fields.pop(CONTENT, b"")
        return _Beside(kind(**fields), content) if content else kind(**fields)

    setattr(module, name, made)


class _Beside(Message):
    """A message of Flower's, and the content that it would have."""

    def __init__(self, rest: Any, content: bytes) -> None:
        self._rest, self.object_content = rest, content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rest, name)

    def SerializeToString(self, **how: Any) -> bytes:
        number = self._rest.DESCRIPTOR.fields_by_name[CONTENT].number
        head = _varint(number << 3 | BYTES) + _varint(len(self.object_content))
        return b"".join((self._rest.SerializeToString(**how), head, self.object_content))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit of a byte says that there are more."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))

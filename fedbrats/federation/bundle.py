"""All arrays of a record as one on the wire, byte for byte: what Flower asks for each array costs more than its bytes.

Flower sends an array as two objects, each by a request of its own. A network of 83 arrays and three sites come to some
1,700 requests in a round, and those, not the 20 MB, then take the SuperLink's time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise

from flwr.app import Array, ArrayRecord, Message, RecordDict

NAME = "bundle"  # of the one array
KIND = "fedbrats.bundle"  # what Flower is told that its bytes are
ALIGNED = 8  # bytes: an array that begins at a multiple of it is read where it lies, another one is copied
LENGTH = 8  # bytes: how long the index is, little-endian
INDEX_BYTES = 2**22  # at most; a network has far less, and a longer one would fill the memory of who reads it


def bundled(record: ArrayRecord) -> ArrayRecord:
    """A record of one array that holds those of `record`: length of the index, index (JSON), their data in a row.

    One with an index that nobody would read stays as it is.
    """
    index = [
        [name, array.dtype, list(array.shape), array.stype, len(array.data)] for name, array in record.items()
    ]
    text = json.dumps(index).encode()
    text += b" " * (-(LENGTH + len(text)) % ALIGNED)
    if len(text) > INDEX_BYTES:
        return record
    head = len(text).to_bytes(LENGTH, "little") + text
    data = b"".join((head, *(array.data for array in record.values())))
    return ArrayRecord({NAME: Array("uint8", (len(data),), KIND, data)})


def unbundled(record: ArrayRecord) -> ArrayRecord:
    """The record that `bundled` was given; one that is none, or is damaged, as it is, to be refused by its names."""
    if list(record) != [NAME] or record[NAME].stype != KIND:
        return record
    try:
        found = ArrayRecord()
        for name, array in _arrays(memoryview(record[NAME].data)):
            found[name] = array  # its constructor would copy them
        return found
    except (ValueError, TypeError, RecursionError):
        return record


def _arrays(data: memoryview) -> Iterator[tuple[str, Array]]:
    """Name and array one after another, their bytes parts of `data`.

    Raises ValueError or TypeError where `bundled` has not made it.
    """
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    if end > min(len(data), LENGTH + INDEX_BYTES):
        raise ValueError("the index is longer than it may be")
    index = json.loads(bytes(data[LENGTH:end]))
    seen = set[str]()
    for name, dtype, shape, kind, size in index:
        if not all(isinstance(text, str) for text in (name, dtype, kind)) or name in seen:
            raise ValueError("an array without a name of its own")
        if not all(type(number) is int and number >= 0 for number in (*shape, size)):
            raise ValueError("a length that is none")
        seen.add(name)
    places = list(accumulate((entry[-1] for entry in index), initial=end))
    if places[-1] != len(data):
        raise ValueError("the lengths are not those of the data")
    for (name, dtype, shape, kind, _), (start, stop) in zip(index, pairwise(places), strict=True):
        array, own = Array(dtype, tuple(shape), kind, b""), data[start:stop]
        array.data = own if start % ALIGNED == 0 else bytes(own)
        yield name, array


def sent(messages: Iterable[Message]) -> list[Message]:
    """What is sent for the messages, which stay as they are; a record that several share is bundled once."""
    made: dict[int, tuple[ArrayRecord, ArrayRecord]] = {}  # by id(), and so the record is held, too

    def once(record: ArrayRecord) -> ArrayRecord:
        if id(record) not in made:
            made[id(record)] = record, bundled(record)
        return made[id(record)][1]

    return [_with(message, once) for message in messages]


def sent_one(message: Message) -> Message:
    """What is sent for one message."""
    return sent([message])[0]


def read(message: Message) -> Message:
    """The message that `sent` was given."""
    return _with(message, unbundled)


def _with(message: Message, change: Callable[[ArrayRecord], ArrayRecord]) -> Message:
    if not message.has_content():
        return message
    content = RecordDict(
        {
            name: change(record) if isinstance(record, ArrayRecord) else record
            for name, record in message.content.items()
        }
    )
    return Message(content, metadata=message.metadata)

"""Fewer copies, and the same bytes: what Flower makes of an array, with and without ours."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.app.message import array as module
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable import inflatable_object, inflatable_protobuf_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers as superlinks
from flwr.supernode.servicer.runtime import runtime_handlers as supernodes
from google.protobuf.message import Message

from fedbrats.engines.superlink import copies

PIECE = 1000  # bytes
HEADER = 128  # bytes before the numbers of an array


@pytest.fixture(autouse=True)
def as_it_comes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small pieces; what a test lets `copy_less` change is Flower's again when it is over."""
    monkeypatch.setattr(module, "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", PIECE)
    given = {cls: dict(vars(cls)) for cls in (Array, ArrayChunk)}
    yield
    for cls, names in given.items():
        for name in set(vars(cls)) - set(names):
            delattr(cls, name)
        for name in ("deflate", "inflate"):
            setattr(cls, name, names[name])


def record() -> ArrayRecord:
    """Two arrays, one of which has a piece between others that are all alike and so sent once."""
    random = np.random.default_rng(0).standard_normal(700)
    zeros = np.zeros(5 * PIECE, np.uint8)
    zeros[2 * PIECE - HEADER : 3 * PIECE - HEADER] = 1
    return ArrayRecord({"random": Array(random), "zeros": Array(zeros)})


def on_the_wire() -> dict[str, bytes]:
    with no_object_id_recompute():
        return {name: part.deflate() for name, part in get_all_nested_objects(record()).items()}


def test_bytes_and_their_names_are_flowers() -> None:
    expected = on_the_wire()
    assert len(expected) > 8
    copies.copy_less()
    assert on_the_wire() == expected


def test_what_comes_is_what_was_sent() -> None:
    contents, name = on_the_wire(), record().object_id
    copies.copy_less()
    found: Any = inflate_object_from_contents(name, contents)
    assert found == record()
    assert all(isinstance(array.data, bytes) for array in found.values())
    np.testing.assert_array_equal(found["random"].numpy(), record()["random"].numpy())


def test_pieces_that_do_not_belong_to_an_array_are_refused() -> None:
    copies.copy_less()
    array = Array(np.zeros(700))
    pieces = dict(list(array.children.items())[1:])
    with pytest.raises(ValueError, match="Unexpected set of `children`"):
        Array.inflate(array.deflate(), pieces)


def test_a_piece_is_hashed_once_however_often_its_name_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed() -> int:
        seen = list[int]()
        hash_of = inflatable_object.get_object_id

        def counted(content: bytes) -> str:
            seen.append(len(content))
            return hash_of(content)

        with monkeypatch.context() as patch:
            patch.setattr(inflatable_object, "get_object_id", counted)
            made = record()
            for _ in range(3):
                get_all_nested_objects(made)
        return sum(size > PIECE for size in seen)

    pieces = sum(
        content.startswith(b"ArrayChunk") and len(content) > PIECE for content in on_the_wire().values()
    )
    assert hashed() > 2 * pieces  # why this is needed
    copies.copy_less()
    array = record()["zeros"]
    alike = len(array.slice_array()) - len(array.children)  # hashed before they are known to be alike
    assert hashed() == pieces + alike


@pytest.mark.parametrize(
    ("place", "name", "fields"),
    [
        (inflatable_protobuf_utils, "PushObjectRequest", {"object_id": "a", "run_id": 7, "session_id": "s"}),
        (fleet_handlers, "PullObjectResponse", {"object_found": True, "object_available": True}),
        (superlinks, "PullObjectResponse", {"object_found": True, "object_available": True}),
        (supernodes, "PullObjectResponse", {"object_found": True, "object_available": True}),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000, 3_000_000])
def test_a_message_with_its_content_beside_it_is_read_as_flowers(
    place: Any, name: str, fields: dict[str, Any], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, content = getattr(place, name), np.random.default_rng(size).bytes(size)
    assert f" {name}(" in inspect.getsource(place)  # where the class is used by its name there
    monkeypatch.setattr(place, name, kind)
    copies.join_when_sent(place, name)
    made = getattr(place, name)(**fields, object_content=content)
    assert isinstance(made, Message)  # as Flower's translation asks
    assert kind.FromString(made.SerializeToString(deterministic=True)) == kind(
        **fields, object_content=content
    )
    if content:
        assert made.object_content is content  # and no copy of it
    nothing = getattr(place, name)(**fields)
    assert nothing.SerializeToString() == kind(**fields).SerializeToString()

"""All arrays of a record as one: byte for byte the same again, and whatever is no bundle stays what it is."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedbrats.arrays import load, signature, travelling
from fedbrats.engines.sites import SERVER_NODE, set_identity
from fedbrats.federation import bundle
from fedbrats.federation.wire import from_record, to_record

TENSORS = {
    "z": torch.randn(3, 2),
    "a": torch.tensor(7),  # of no dimension
    "é.0": torch.randn(4).to(torch.bfloat16),
    "none": torch.zeros(0, 5),
    "half": torch.randn(2).half(),
}


def message(**records: ArrayRecord | ConfigRecord) -> Message:
    set_identity(SERVER_NODE)
    return Message(RecordDict(dict(records)), 2, "train", group_id="3")


def forged(index: object, data: bytes = b"", length: int | None = None) -> ArrayRecord:
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    head = (len(text) if length is None else length).to_bytes(bundle.LENGTH, "little")
    whole = head + text + data
    return ArrayRecord({bundle.NAME: Array("uint8", (len(whole),), bundle.KIND, whole)})


def test_arrays_come_out_as_they_went_in() -> None:
    record = to_record(TENSORS)
    found = bundle.unbundled(bundle.bundled(record))
    assert list(found) == list(record)
    assert dict(found) == dict(record)  # dtype, shape, kind and every byte


def test_bytes_are_not_copied_where_numbers_may_begin() -> None:
    sizes = {"w": torch.randn(4), "half": torch.randn(1).half(), "odd": torch.zeros(3, dtype=torch.int8)}
    whole = bundle.bundled(to_record(sizes | {"after": torch.ones(2)}))
    found = bundle.unbundled(whole)
    assert [type(array.data) for array in found.values()] == [memoryview, memoryview, bytes, bytes]
    assert found["w"].data.obj is whole[bundle.NAME].data  # type: ignore[attr-defined]
    for name, form in from_record(
        found,
        {n: (tuple(t.shape), str(t.dtype)[6:]) for n, t in sizes.items()} | {"after": ((2,), "float32")},
    ).items():
        assert form.flags.aligned, name


def test_arrays_that_cannot_be_written_go_into_a_network_without_a_warning() -> None:
    network = torch.nn.Linear(2, 3)
    given = bundle.unbundled(bundle.bundled(to_record(travelling(network))))
    arrays = from_record(given, signature(travelling(network)))
    assert not any(array.flags.writeable for array in arrays.values())
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load(network, arrays)
    finally:
        torch.set_warn_always(False)


def test_however_many_arrays_flower_is_asked_for_few_objects() -> None:
    many = message(arrays=to_record({str(i): torch.full((3,), float(i)) for i in range(200)}))
    assert len(get_all_nested_objects(many)) > 400
    (sent,) = bundle.sent([many])
    assert len(get_all_nested_objects(sent)) == 5  # message, its records, the record, the array, its bytes
    assert len(many.content["arrays"]) == 200  # what is sent is another message


def test_messages_come_out_as_they_went_in() -> None:
    given = message(
        arrays=to_record(TENSORS), beside=to_record({"c": torch.ones(2)}), config=ConfigRecord({"round": 1})
    )
    found = bundle.read(bundle.sent_one(given))
    assert found.content == given.content
    assert found.metadata == given.metadata
    reply = Message(Error(2, "why"), reply_to=given)
    assert bundle.read(bundle.sent_one(reply)).error.reason == "why"


def test_what_messages_share_is_bundled_once() -> None:
    model = to_record(TENSORS)
    first, second = bundle.sent([message(arrays=model), message(arrays=model)])
    assert first.content["arrays"] is second.content["arrays"]


def test_a_record_that_is_no_bundle_stays_as_it_is() -> None:
    whole = forged([GOOD], b"1234")[bundle.NAME]
    for name, kind in ((bundle.NAME, "numpy.ndarray"), ("other", bundle.KIND)):
        alike = ArrayRecord({name: Array(whole.dtype, whole.shape, kind, whole.data)})
        assert bundle.unbundled(alike) is alike
    assert list(bundle.unbundled(ArrayRecord({bundle.NAME: whole}))) == ["w"]
    plain = to_record({bundle.NAME: torch.ones(2)})
    assert bundle.unbundled(plain) is plain
    assert dict(bundle.unbundled(bundle.bundled(plain))) == dict(plain)


GOOD = ["w", "float32", [1], "numpy.ndarray", 4]


@pytest.mark.parametrize(
    "record",
    [
        forged([GOOD], b"123"),  # less than said
        forged([GOOD], b"12345"),  # more
        forged([GOOD, GOOD], b"12345678"),  # one name twice
        forged([[*GOOD[:4], -4], ["v", *GOOD[1:4], 8]], b"1234"),
        forged([[*GOOD[:4], True]], b"1"),
        forged([[*GOOD[:2], ["1"], *GOOD[3:]]], b"1234"),
        forged([["w", 32, *GOOD[2:]]], b"1234"),
        forged([GOOD[:4]], b"1234"),
        forged(7),
        forged({"w": 1}),
        forged(b"[" * 100_000),
        forged(b"not JSON"),
        forged(b"\xff\xfe"),
        forged([], length=5),  # beyond the end
        forged(b" " * (bundle.INDEX_BYTES + 1) + b"[]"),
        ArrayRecord({bundle.NAME: Array("uint8", (3,), bundle.KIND, b"abc")}),
    ],
)
def test_a_damaged_bundle_stays_as_it_is(record: ArrayRecord) -> None:
    assert bundle.unbundled(record) is record


def test_an_index_that_nobody_would_read_is_not_sent() -> None:
    record = ArrayRecord({"x" * bundle.INDEX_BYTES: Array("uint8", (1,), "numpy.ndarray", b"1")})
    assert bundle.bundled(record) is record

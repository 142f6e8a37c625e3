from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from flwr.app import ArrayRecord

from fedbrats.engines.shared import SharedArea
from tests.engines import toy_app  # noqa: F401  (sets Flower's environment)


def _record(size: int, value: int = 0) -> ArrayRecord:
    """One array of `size` bytes without its npy header of 128 bytes."""
    return ArrayRecord([np.full(size - 128, value, np.uint8)])


@pytest.mark.parametrize("memfd", [True, False])
def test_a_record_comes_back_as_it_was(memfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> int:
        raise OSError(errno.ENOSYS, name)

    if not memfd:
        monkeypatch.setattr(os, "memfd_create", missing, raising=False)
    area = SharedArea()
    rng = np.random.default_rng(0)
    record = ArrayRecord(
        [rng.random((3, 4)), rng.random(5).astype(np.float16), np.array(3), np.zeros((0, 2), np.float32)]
    )
    back = area.fetch(area.place(record))
    assert back == record
    assert list(back) == list(record)
    assert all(isinstance(array.data, bytes) for array in back.values())
    area.close()


def test_room_is_given_again() -> None:
    area = SharedArea()
    first, second, third = (area.place(_record(1000, i)) for i in range(3))
    assert [first.offset, second.offset, third.offset] == [0, 1000, 2000]
    area.free(second)
    assert area.place(_record(1001)).offset == 3000  # too large for the gap
    again = area.place(_record(600, 7))
    assert again.offset == 1000
    assert area.place(_record(400)).offset == 1600
    assert [area.fetch(placed)["0"].numpy()[-1] for placed in (first, again, third)] == [0, 7, 2]
    area.clear()
    assert area.place(_record(200)).offset == 0
    area.close()


def test_a_record_that_is_not_complete_is_refused() -> None:
    area, other = SharedArea(), SharedArea()
    with pytest.raises(OSError, match="array 0 is not complete"):
        other.fetch(area.place(_record(1000)))
    area.close()
    other.close()

"""What messages leave behind."""

from __future__ import annotations

import gc

import pytest
from flwr.app import RecordDict

from fedbrats.engines.local import local_grid
from tests.engines import toy_app
from tests.engines.toy_app import ask, content, record


@pytest.mark.parametrize("workers", [0, 1])
def test_messages_are_freed_without_the_garbage_collector(workers: int) -> None:
    """A reference cycle around a RecordDict would keep whole models until the collector happens to run."""
    with local_grid(toy_app.make, ["a", "b"], workers=workers) as grid:
        ask(grid, content(record(0)))  # what is made once may well be cyclic
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            ask(grid, content(record(1)))
            gc.collect()
            left = [kept for kept in gc.garbage if isinstance(kept, RecordDict)]
        finally:
            gc.set_debug(0)
            gc.enable()
            gc.garbage.clear()
    assert not left

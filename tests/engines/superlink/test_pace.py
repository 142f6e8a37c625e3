"""What is set otherwise in Flower is still where we think it is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError, pull_objects

from fedbrats.engines.superlink import pace


@pytest.fixture
def as_it_comes() -> Iterator[None]:
    given = dict(pull_objects.__kwdefaults__)
    yield
    pull_objects.__kwdefaults__.update(given)


@pytest.mark.usefixtures("as_it_comes")
def test_an_object_that_is_on_its_way_is_asked_for_again_soon() -> None:
    def seconds() -> float:
        tries = list[str]()

        def pull(name: str) -> bytes:
            tries.append(name)
            if len(tries) < 2:
                raise ObjectUnavailableError(name)
            return b"it"

        began = time.monotonic()
        assert pull_objects(["a"], pull) == {"a": b"it"}
        return time.monotonic() - began

    assert seconds() > 0.7  # Flower's second, less a fifth
    pace.ask_again_sooner()
    assert pace.FIRST * 0.7 < seconds() < 0.6

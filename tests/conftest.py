"""Fixtures of the whole test suite."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from xdist.scheduler import LoadFileScheduling

from tests import composed_once

with contextlib.suppress(ImportError):
    from absl import logging as absl_logging

    # It closes the stream that it found at its import when Hydra sets up logging anew; here that is pytest's capture.
    # dp-accounting imports it, so without this the order of the tests would decide whether they can run.
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


# They start one federation of processes together (tests/engines/superlink/conftest.py).
SHARED = [f"tests/engines/superlink/test_{name}.py" for name in ("deployment", "killed", "resumed")]
THREADS = torch.get_num_threads()  # before any test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that none is waited for at the end; `--no-loadscope-reorder` keeps the order."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


class ByFileAndFederation(LoadFileScheduling):  # type: ignore[misc]
    """One worker for each file, and one for all files that use the same federation of processes."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return SHARED[0] if file in SHARED else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return ByFileAndFederation(config, log)


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        composed_once.install(patch)
        yield


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """A test that leaves torch with more threads makes all after it slower, by ten times on cores that are busy."""
    yield
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    assert threads == THREADS, "torch.set_num_threads: put back what was there"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache, and so one phantom, for all tiny runs of the session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Figures are made, but not drawn into files: for tests of what a report says, most of whose time it would be."""

    def savefig(_: Figure, to: Any, **more: Any) -> None:
        if isinstance(to, str | Path):
            Path(to).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield

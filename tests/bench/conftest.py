"""Processes of the benchmark start at once here; measured, they are new ones, which takes seconds each."""

from __future__ import annotations

import multiprocessing

import pytest

from fedbrats.engines.warm import warm_up, worker_context


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up()
    context = worker_context()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)

"""A site's resident process outlives a task that it cannot do, and says that it has given it up."""

from __future__ import annotations

import pytest

from fedbrats.engines.superlink import worker
from fedbrats.engines.superlink.handed import Where


def test_a_task_that_it_cannot_begin_is_told_as_failed_and_the_next_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (Where(f"127.0.0.1:{port}", "token", True, None) for port in (1, 2))
    told, done = list[tuple[Where, str]](), list[Where]()

    def site_task(where: Where, answer: object) -> None:
        if where is first:
            raise RuntimeError("can't start new thread at John Smith")
        done.append(where)

    monkeypatch.setattr(worker, "begin", lambda: None)
    monkeypatch.setattr(worker, "tasks", lambda resident: iter([first, second]))
    monkeypatch.setattr(worker, "site_task", site_task)
    monkeypatch.setattr(worker, "tell_failed", lambda where, why: told.append((where, why)))
    worker.main()
    assert told == [(first, "its worker gave it up (RuntimeError)")]
    assert done == [second]

"""Worker processes that die, hang, run ahead or cannot start."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import toy_app
from flwr.app import Message
from flwr.serverapp import Grid
from toy_app import ask, content, pull, push, record, serve, value

from fedbrats.engines import worker_grid
from fedbrats.engines.local import run_local
from fedbrats.engines.process import SLOTS
from fedbrats.engines.worker_grid import WorkerError

SITES = ["a", "b", "c", "d"]  # of equal load: worker 0 has a and c, worker 1 has b and d


def _pids(replies: list[Message]) -> list[int]:
    return [reply.content["metrics"]["pid"] for reply in replies]


def test_a_dead_worker_fails_its_sites_for_one_round() -> None:
    def main(grid: Grid) -> None:
        before = _pids(ask(grid, content(record(0))))
        assert before[0] == before[2] != before[1] == before[3]
        replies = ask(grid, content(record(0), site="b", exit=7))
        assert [reply.has_error() for reply in replies] == [False, True, False, True]
        assert replies[1].error.reason == "worker process died (exit code 7)"
        assert replies[3].error.reason.endswith("at work on site b, before this site's turn")
        assert [reply.metadata.src_node_id for reply in replies] == [2, 3, 4, 5]
        after = ask(grid, content(record(5)))
        assert [value(reply) for reply in after] == [5, 6, 7, 8]
        assert _pids(after)[0] == before[0]
        assert _pids(after)[1] == _pids(after)[3] not in before
        assert [reply.content["metrics"]["rounds"] for reply in after] == [3, 1, 3, 1]

    run_local(serve(main), toy_app.make, SITES, workers=2)


def test_a_killed_worker_is_noticed_at_once() -> None:
    def main(grid: Grid) -> None:
        pid = _pids(ask(grid, content(record(0))))[1]
        ids = push(grid, content(record(0), site="b", sleep=60))
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        begin = time.monotonic()
        reason = pull(grid, ids[1]).error.reason
        assert time.monotonic() - begin < 3
        assert "exit code -9, SIGKILL, most likely out of memory" in reason
        assert not pull(grid, ids[0]).has_error()
        idle = psutil.Process(_pids(ask(grid, content(record(0))))[0])
        idle.kill()
        while idle.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert [value(reply) for reply in ask(grid, content(record(1)))] == [1, 2, 3, 4]

    run_local(serve(main), toy_app.make, SITES, workers=2)


def test_replies_of_a_worker_that_died_later_are_kept() -> None:
    def main(grid: Grid) -> None:
        ids = push(grid, content(record(1), site="c", exit=1))
        assert pull(grid, ids[2]).has_error()
        assert value(pull(grid, ids[0])) == 1

    run_local(serve(main), toy_app.make, SITES, workers=1)


def test_a_fast_worker_waits_for_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sites = ["slow", *(f"fast {i}" for i in range(8))]
    load = {site: 100.0 if site == "slow" else 1.0 for site in sites}

    def main(grid: Grid) -> None:
        ask(grid, content(record(0)))
        log.write_text("")
        ids = push(grid, content(record(0), site="slow", sleep=1.0))
        pull(grid, ids[0])
        assert log.read_text().count("fast") == SLOTS + 1  # the last one is done but has no slot
        assert [value(pull(grid, message_id)) for message_id in ids[1:]] == [1, 2, 3, 4, 5, 6, 7, 8]

    run_local(serve(main), functools.partial(toy_app.make, log=str(log)), sites, workers=2, load=load)


def test_replies_without_arrays_need_no_slot() -> None:
    def main(grid: Grid) -> None:
        train = push(grid, content(record(0)), nodes=[2, 3])  # both slots are taken
        evaluate = push(grid, content(record(0)), "evaluate", nodes=[4, 5])
        assert [pull(grid, i).content["metrics"]["partition"] for i in evaluate] == [2, 3]
        assert [value(pull(grid, i)) for i in train] == [0, 1]

    run_local(serve(main), toy_app.make, SITES, workers=1)


def test_a_straggler_that_ends_within_the_grace_keeps_its_worker() -> None:
    def main(grid: Grid) -> None:
        before = _pids(ask(grid, content(record(0))))
        late = push(grid, content(record(0), site="b", sleep=1.0))[1]
        with pytest.raises(TimeoutError):
            pull(grid, late, seconds=0.1)
        after = ask(grid, content(record(50)))
        assert _pids(after) == before
        assert [value(reply) for reply in after] == [50, 51, 52, 53]
        assert grid.pull_messages([late]) == []

    run_local(serve(main), toy_app.make, SITES, workers=2)


def test_a_straggler_that_hangs_loses_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_grid, "GRACE", 0.3)

    def main(grid: Grid) -> None:
        before = _pids(ask(grid, content(record(0))))
        old = push(grid, content(record(0), site="b", sleep=60))
        with pytest.raises(TimeoutError):
            pull(grid, old[1], seconds=0.1)
        replies = ask(grid, content(record(50)), nodes=[2, 3])
        assert [value(reply) for reply in replies] == [50, 51]
        assert _pids(replies)[0] == before[0]
        assert _pids(replies)[1] != before[1]
        # site d was not superseded, it sat behind b in the same worker
        assert "killed because a site did not finish in time" in pull(grid, old[3]).error.reason

    begin = time.monotonic()
    run_local(serve(main), toy_app.make, SITES, workers=2)
    assert time.monotonic() - begin < 40


def test_a_hanging_site_does_not_keep_the_run_from_ending() -> None:
    def main(grid: Grid) -> None:
        ask(grid, content(record(0)))
        push(grid, content(record(0), sleep=60))
        begin.append(time.monotonic())

    begin: list[float] = []
    run_local(serve(main), toy_app.make, SITES, workers=2)
    assert time.monotonic() - begin[0] < 3


def test_a_worker_that_cannot_start_shows_its_traceback() -> None:
    def main(grid: Grid) -> None:
        ask(grid, content(record(0)))

    with pytest.raises(WorkerError, match=r"(?s)cannot start:\nTraceback.*ValueError: no such network"):
        run_local(serve(main), functools.partial(toy_app.make, fail="raise"), SITES, workers=2)
    with pytest.raises(WorkerError, match=r"exit code 3.*while it was starting"):
        run_local(serve(main), functools.partial(toy_app.make, fail="exit"), SITES, workers=2)

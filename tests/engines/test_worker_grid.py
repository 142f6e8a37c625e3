"""Worker processes that die, hang, run ahead or cannot start."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from fedbrats.engines import worker_grid
from fedbrats.engines.local import local_grid, run_local
from fedbrats.engines.process import SLOTS
from fedbrats.engines.worker_grid import WINDOW, WorkerError
from tests.engines import toy_app
from tests.engines.toy_app import MEGABYTE, ask, content, pull, push, record, serve, value

SITES = ["a", "b", "c", "d"]  # of equal load: worker 0 has a and c, worker 1 has b and d


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    """One for all tests here, to save the starts."""
    with local_grid(toy_app.make, SITES, workers=2) as grid:
        yield grid


def _pids(replies: list[Message]) -> list[int]:
    return [reply.content["metrics"]["pid"] for reply in replies]


def test_a_dead_worker_fails_its_sites_for_one_round(grid: Grid) -> None:
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
    assert [reply.content["metrics"]["rounds"] for reply in after] == [3, 1, 3, 1]  # first test of the grid


def test_what_has_arrived_is_known_before_it_is_pulled(grid: Grid) -> None:
    ids = push(grid, content(record(0), site="a", sleep=1))
    deadline = time.monotonic() + 30
    while not set(grid.arrived()) and time.monotonic() < deadline:
        assert grid.pull_messages(ids[:1]) == []
    assert set(grid.arrived()) <= {ids[1], ids[3]}  # of the other worker
    assert [value(pull(grid, message_id)) for message_id in ids] == [0, 1, 2, 3]
    assert not grid.arrived()


def test_a_killed_worker_is_noticed_at_once(grid: Grid) -> None:
    pid = _pids(ask(grid, content(record(0))))[1]
    ids = push(grid, content(record(0), site="b", sleep=60))
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    begin = time.monotonic()
    reason = pull(grid, ids[1]).error.reason
    assert time.monotonic() - begin < 3
    assert "exit code -9, SIGKILL, most likely out of memory" in reason
    assert not pull(grid, ids[0]).has_error()


def test_a_worker_that_dies_between_two_rounds_is_started_again(grid: Grid) -> None:
    pid = _pids(ask(grid, content(record(0))))[0]
    idle = next(worker.process for worker in grid._workers if worker.process.pid == pid)
    idle.kill()
    assert connection.wait([idle.sentinel], timeout=30)  # from here on the grid can know
    assert [value(reply) for reply in ask(grid, content(record(1)))] == [1, 2, 3, 4]


def test_replies_of_a_worker_that_died_later_are_kept(grid: Grid) -> None:
    ids = push(grid, content(record(1), site="c", exit=1), nodes=[2, 4])
    assert pull(grid, ids[1]).has_error()
    assert value(pull(grid, ids[0])) == 1


def test_replies_without_arrays_need_no_slot(grid: Grid) -> None:
    first = push(grid, content(record(0)), nodes=[2, 2])  # both slots of the worker are taken
    evaluate = push(grid, content(record(0)), "evaluate", nodes=[4])
    assert pull(grid, evaluate[0]).content["metrics"]["partition"] == 2
    assert [value(pull(grid, message_id)) for message_id in first] == [0, 0]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="shared memory is looked up in /proc")
def test_shared_memory_does_not_grow_with_sites_or_rounds() -> None:
    sites, size, before = 12, MEGABYTE, set(_shared_files())
    with local_grid(toy_app.make, [f"site {i}" for i in range(sites)], workers=2) as grid:
        for _ in range(2):
            messages = [
                grid.create_message(content(record(0, size=size // 4)), "train", node, "1")
                for node in grid.get_node_ids()
            ]
            for message_id in grid.push_messages(messages):
                pull(grid, message_id)
        used = sum(path.stat().st_size for path in set(_shared_files()) - before)
    # at most the messages and the slots of two workers, each with an npy header
    assert 0 < used <= 2 * (WINDOW + SLOTS) * (size + 128)


def _shared_files() -> list[Path]:
    files = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if "memfd:fedbrats" in os.readlink(path):
                files.append(path)
    return files


def test_a_straggler_that_ends_within_the_grace_keeps_its_worker(grid: Grid) -> None:
    before = _pids(ask(grid, content(record(0))))
    late = push(grid, content(record(0), site="b", sleep=1.0))[1]
    with pytest.raises(TimeoutError):
        pull(grid, late, seconds=0.1)
    after = ask(grid, content(record(50)))
    assert _pids(after) == before
    assert [value(reply) for reply in after] == [50, 51, 52, 53]
    assert grid.pull_messages([late]) == []


def test_a_straggler_that_hangs_loses_its_worker(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_grid, "GRACE", 0.3)
    before = _pids(ask(grid, content(record(0))))
    old = push(grid, content(record(0), site="b", sleep=60))
    with pytest.raises(TimeoutError):
        pull(grid, old[1], seconds=0.1)
    replies = ask(grid, content(record(50)), nodes=[2, 3])
    assert [value(reply) for reply in replies] == [50, 51]
    assert _pids(replies)[0] == before[0]
    assert _pids(replies)[1] != before[1]
    # site d was not superseded, it waited behind b in the same worker
    assert "killed because a site did not finish in time" in pull(grid, old[3]).error.reason


def test_a_fast_worker_waits_for_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sites = ["slow", *(f"fast {i}" for i in range(8))]
    load = {site: 100.0 if site == "slow" else 1.0 for site in sites}
    with local_grid(functools.partial(toy_app.make, log=str(log)), sites, workers=2, load=load) as grid:
        ask(grid, content(record(0)))
        log.write_text("")
        ids = push(grid, content(record(0), site="slow", sleep=1.0))
        pull(grid, ids[0])
        assert log.read_text().count("fast") == SLOTS + 1  # the last one is done but has no slot
        assert [value(pull(grid, message_id)) for message_id in ids[1:]] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_hanging_site_does_not_keep_the_run_from_ending() -> None:
    begin: list[float] = []

    def main(grid: Grid) -> None:
        ask(grid, content(record(0)))
        push(grid, content(record(0), sleep=60))
        begin.append(time.monotonic())

    run_local(serve(main), toy_app.make, SITES, workers=1)
    assert time.monotonic() - begin[0] < 3


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("raise", r"(?s)sites? .*cannot start:\nTraceback.*ValueError: no such network"),
        ("exit", r"exit code 3.*while it was starting"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_run(fail: str, message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        run_local(
            serve(lambda grid: ask(grid, content(record(0))) and None),
            functools.partial(toy_app.make, fail=fail),
            ["site a"],
            workers=1,
        )

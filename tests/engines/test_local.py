"""The local engine as a ServerApp sees it, with and without worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedbrats.engines.local import local_grid, run_local
from tests.engines import toy_app
from tests.engines.toy_app import MEGABYTE, ask, content, pull, push, record, serve, value

SITES = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module", params=[0, 1, 2])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def grid(workers: int) -> Iterator[Grid]:
    """One for all tests here, to save the starts; every push supersedes what a failed test has left."""
    with local_grid(toy_app.make, SITES, workers=workers) as grid:
        yield grid


@pytest.mark.slow
def test_rounds_and_contexts(grid: Grid) -> None:
    assert list(grid.get_node_ids()) == [2, 3, 4, 5, 6]
    mean, seen = 1.0, []
    for _ in range(3):
        replies = ask(grid, content(record(mean)))
        seen.append([value(reply) for reply in replies])
        mean = sum(seen[-1]) / 5
        rounds = [reply.content["metrics"]["rounds"] for reply in replies]
    # site i adds i, the mean of 0..4 is 2
    assert seen == [[1, 2, 3, 4, 5], [3, 4, 5, 6, 7], [5, 6, 7, 8, 9]]
    assert rounds == [3] * 5  # the first test that uses the grid
    evaluated = ask(grid, content(record(mean)), "evaluate")
    assert [reply.content["metrics"]["partition"] for reply in evaluated] == [0, 1, 2, 3, 4]


def test_replies_come_in_the_order_asked_and_name_their_message(grid: Grid) -> None:
    ids = push(grid, content(record(10)))
    # the last first: its worker must not wait for the first ones to be pulled
    replies = [pull(grid, message_id) for message_id in reversed(ids)]
    assert [value(reply) for reply in replies] == [14, 13, 12, 11, 10]
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids[::-1]
    assert [reply.metadata.src_node_id for reply in replies] == [6, 5, 4, 3, 2]
    assert len({reply.metadata.message_id for reply in replies} | set(ids)) == 10
    assert grid.pull_messages(ids) == []  # a reply is handed out once


def test_a_site_that_raises_fails_alone_and_only_this_time(grid: Grid) -> None:
    before = [reply.content["metrics"] for reply in ask(grid, content(record(0)))]
    replies = ask(grid, content(record(0), site="b", **{"raise": "boom " + "x" * 5000}))
    assert [reply.has_error() for reply in replies] == [False, True, False, False, False]
    reason = replies[1].error.reason
    assert reason.startswith("ValueError: boom xxx")
    assert "toy_app.py, line" in reason
    assert len(reason) <= 2000
    assert replies[1].metadata.src_node_id == 3
    after = [reply.content["metrics"] for reply in ask(grid, content(record(0)))]
    assert [new["pid"] for new in after] == [old["pid"] for old in before]
    assert [new["rounds"] - old["rounds"] for new, old in zip(after, before)] == [2, 1, 2, 2, 2]


def test_broadcast_arrays_are_one_object_per_push(grid: Grid, workers: int) -> None:
    arrays = record(0)
    for _ in range(2 if workers else 1):
        same = [reply.content["metrics"]["same"] for reply in ask(grid, content(arrays))]
        # the first site of each process sees a new object, the others know it
        assert sum(same) == len(SITES) - max(workers, 1)


def test_every_site_can_be_sent_arrays_of_its_own(grid: Grid) -> None:
    messages = [
        grid.create_message(content(record(10 * node, 0)), "train", node, "1") for node in grid.get_node_ids()
    ]
    replies = [pull(grid, message_id) for message_id in grid.push_messages(messages)]
    assert [value(reply) for reply in replies] == [20, 31, 42, 53, 64]


@pytest.mark.slow
def test_large_empty_and_scalar_arrays(grid: Grid) -> None:
    replies = ask(grid, content(record(1), resize=3 * MEGABYTE))  # far larger than any slot so far
    for i, reply in enumerate(replies):
        array = reply.content["arrays"]["0"].numpy()
        assert array.shape == (3 * MEGABYTE,)
        assert (array == 1 + i).all()
    odd = ArrayRecord([np.array(7, np.float32), np.zeros((0, 3), np.float32)])
    for i, reply in enumerate(ask(grid, content(odd))):
        scalar, empty = reply.content["arrays"].to_numpy_ndarrays()
        assert (scalar.shape, float(scalar), empty.shape) == ((), 7 + i, (0, 3))
    assert len(ask(grid, content(ArrayRecord()))[0].content["arrays"]) == 0


def test_flowers_own_strategy_runs_unchanged(grid: Grid) -> None:
    strategy = FedAvg(min_train_nodes=5, min_evaluate_nodes=5, min_available_nodes=5)
    result = strategy.start(grid=grid, initial_arrays=record(1), num_rounds=2)
    assert float(result.arrays["0"].numpy()[0]) == pytest.approx(5.0)  # 1 + two rounds of mean 2


def test_a_new_message_supersedes_an_open_one(grid: Grid) -> None:
    old = push(grid, content(record(0)))
    new = push(grid, content(record(100)), nodes=[2, 3])
    assert [value(pull(grid, message_id)) for message_id in new] == [100, 101]
    assert [value(pull(grid, message_id)) for message_id in old[2:]] == [2, 3, 4]
    assert grid.pull_messages(old[:2]) == []


def test_a_message_to_nobody_is_refused(grid: Grid) -> None:
    with pytest.raises(ValueError, match="no site has node id 99"):
        push(grid, content(record(0)), nodes=[99])


def test_a_site_cannot_change_the_small_records_of_another(grid: Grid) -> None:
    shared = content(record(0), change=True)
    assert [value(reply) for reply in ask(grid, shared)] == [0, 1, 2, 3, 4]
    assert dict(shared["config"]) == {"change": True}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_server_comes_out_and_nothing_is_left(workers: int) -> None:
    def fail(grid: Grid) -> None:
        pull(grid, push(grid, content(record(0)))[0])
        raise LookupError("the server's own")

    def succeed(grid: Grid) -> None:
        ask(grid, content(record(0)))

    run_local(serve(succeed), toy_app.make, SITES, workers=workers)  # starts what stays for ever
    before = _left()
    with pytest.raises(LookupError, match="the server's own"):
        run_local(serve(fail), toy_app.make, SITES, workers=workers)
    run_local(serve(succeed), toy_app.make, SITES, workers=workers)
    assert _left() == before


def _left() -> tuple[set[int], int]:
    """Child processes and the number of open files."""
    process = psutil.Process()
    return {child.pid for child in process.children(recursive=True)}, process.num_fds()


@pytest.mark.parametrize("workers", [0, 1])
def test_threads_of_the_workers_and_of_this_process(workers: int) -> None:
    import torch

    before, environment = torch.get_num_threads(), dict(os.environ)
    with local_grid(toy_app.make_with_torch, ["a", "b"], workers=workers, threads=before + 1) as grid:
        answers = [dict(reply.content["config"]) for reply in ask(grid, content(), "query")]
    assert [answer["site"] for answer in answers] == ["a", "b"]
    assert {answer["threads"] for answer in answers} == {before + 1}
    if workers:
        assert {answer["omp"] for answer in answers} == {str(before + 1)}
    assert torch.get_num_threads() == before
    assert dict(os.environ) == environment


@pytest.mark.parametrize(("workers", "threads"), [(-1, 1), (1, 0)])
def test_impossible_numbers_are_refused(workers: int, threads: int) -> None:
    with pytest.raises(ValueError, match="workers must be at least 0 and threads at least 1"):
        run_local(serve(lambda grid: None), toy_app.make, SITES, workers=workers, threads=threads)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_memory_of_the_server_does_not_grow_with_the_sites(workers: int) -> None:
    size = 16  # MB
    few, many = (float(_python(f"toy_app.print_peak({workers}, {sites}, {size})")) for sites in (4, 24))
    assert abs(many - few) < size


def test_flower_sends_nothing_home() -> None:
    script = "from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"
    assert _python(script).strip() == "0"


def _python(script: str) -> str:
    """What a new process prints that imports the engine and has none of Flower's variables set."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("FLWR_", "RAY_"))}
    command = [sys.executable, "-c", f"import toy_app; {script}"]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout

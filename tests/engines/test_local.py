"""The local engine as a ServerApp sees it, with and without worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import toy_app
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from toy_app import MEGABYTE, ask, content, pull, push, record, serve, value

from fedbrats.engines.local import run_local

SITES = ["a", "b", "c", "d", "e"]
EVERY = pytest.mark.parametrize("workers", [0, 1, 2])


@EVERY
def test_rounds_states_and_replies(workers: int) -> None:
    seen: list[tuple[list[float], list[int]]] = []

    def main(grid: Grid) -> None:
        assert list(grid.get_node_ids()) == [2, 3, 4, 5, 6]
        mean = 1.0
        for _ in range(3):
            replies = ask(grid, content(record(mean)))
            values = [value(reply) for reply in replies]
            mean = sum(values) / 5
            seen.append((values, [reply.content["metrics"]["rounds"] for reply in replies]))
        evaluated = ask(grid, content(record(mean)), "evaluate")
        assert [reply.content["metrics"]["partition"] for reply in evaluated] == [0, 1, 2, 3, 4]

    run_local(serve(main), toy_app.make, SITES, workers=workers)
    # site i adds i, the mean of 0..4 is 2
    assert [values for values, _ in seen] == [[1, 2, 3, 4, 5], [3, 4, 5, 6, 7], [5, 6, 7, 8, 9]]
    assert [rounds for _, rounds in seen] == [[1] * 5, [2] * 5, [3] * 5]


@EVERY
def test_replies_come_in_the_order_asked_and_name_their_message(workers: int) -> None:
    def main(grid: Grid) -> None:
        ids = push(grid, content(record(10)))
        # the last first: the first ones of a worker then wait for nobody
        replies = [pull(grid, message_id) for message_id in reversed(ids)]
        assert [value(reply) for reply in replies] == [14, 13, 12, 11, 10]
        assert [reply.metadata.reply_to_message_id for reply in replies] == ids[::-1]
        assert [reply.metadata.src_node_id for reply in replies] == [6, 5, 4, 3, 2]
        assert len({reply.metadata.message_id for reply in replies} | set(ids)) == 10
        assert grid.pull_messages(ids) == []  # a reply is handed out once

    run_local(serve(main), toy_app.make, SITES, workers=workers)


@EVERY
def test_a_site_that_raises_fails_alone_and_only_this_time(workers: int) -> None:
    def main(grid: Grid) -> None:
        pids = [reply.content["metrics"]["pid"] for reply in ask(grid, content(record(0)))]
        replies = ask(grid, content(record(0), site="b", **{"raise": "boom " + "x" * 5000}))
        assert [reply.has_error() for reply in replies] == [False, True, False, False, False]
        reason = replies[1].error.reason
        assert reason.startswith("ValueError: boom xxx")
        assert "toy_app.py, line" in reason
        assert len(reason) <= 2000
        assert replies[1].metadata.src_node_id == 3
        after = ask(grid, content(record(0)))
        assert [reply.content["metrics"]["pid"] for reply in after] == pids
        assert [reply.content["metrics"]["rounds"] for reply in after] == [3, 2, 3, 3, 3]

    run_local(serve(main), toy_app.make, SITES, workers=workers)


@EVERY
def test_broadcast_arrays_are_one_object_per_push(workers: int) -> None:
    def main(grid: Grid) -> None:
        arrays = record(0)
        for _ in range(2):
            same = [reply.content["metrics"]["same"] for reply in ask(grid, content(arrays))]
            per_process = max(workers, 1)
            if workers:  # the first site of each process sees a new object, the others know it
                assert sum(same) == len(SITES) - per_process

    run_local(serve(main), toy_app.make, SITES, workers=workers)


@EVERY
def test_every_site_can_be_sent_arrays_of_its_own(workers: int) -> None:
    def main(grid: Grid) -> None:
        messages = [
            grid.create_message(content(record(10 * node, 0)), "train", node, "1")
            for node in grid.get_node_ids()
        ]
        replies = [pull(grid, message_id) for message_id in grid.push_messages(messages)]
        assert [value(reply) for reply in replies] == [20, 31, 42, 53, 64]

    run_local(serve(main), toy_app.make, SITES, workers=workers)


@EVERY
def test_large_empty_and_scalar_arrays(workers: int) -> None:
    def main(grid: Grid) -> None:
        ask(grid, content(record(1)))  # slots are small now
        replies = ask(grid, content(record(1), resize=3 * MEGABYTE))
        for i, reply in enumerate(replies):
            array = reply.content["arrays"]["0"].numpy()
            assert array.shape == (3 * MEGABYTE,)
            assert (array == 1 + i).all()
        odd = ArrayRecord([np.array(7, np.float32), np.zeros((0, 3), np.float32)])
        for i, reply in enumerate(ask(grid, content(odd))):
            scalar, empty = reply.content["arrays"].to_numpy_ndarrays()
            assert (scalar.shape, float(scalar), empty.shape) == ((), 7 + i, (0, 3))
        assert len(ask(grid, content(ArrayRecord()))[0].content["arrays"]) == 0

    run_local(serve(main), toy_app.make, SITES, workers=workers)


@EVERY
def test_flowers_own_strategy_runs_unchanged(workers: int) -> None:
    results: list[float] = []

    def main(grid: Grid) -> None:
        strategy = FedAvg(min_train_nodes=5, min_evaluate_nodes=5, min_available_nodes=5)
        outcome = strategy.start(grid=grid, initial_arrays=record(1), num_rounds=2)
        results.append(float(outcome.arrays["0"].numpy()[0]))

    run_local(serve(main), toy_app.make, SITES, workers=workers)
    assert results == pytest.approx([5.0])  # 1 + two rounds of mean 2


@EVERY
def test_a_new_message_supersedes_an_open_one(workers: int) -> None:
    def main(grid: Grid) -> None:
        old = push(grid, content(record(0)))
        new = push(grid, content(record(100)), nodes=[2, 3])
        assert [value(pull(grid, message_id)) for message_id in new] == [100, 101]
        assert [value(pull(grid, message_id)) for message_id in old[2:]] == [2, 3, 4]
        assert grid.pull_messages(old[:2]) == []

    run_local(serve(main), toy_app.make, SITES, workers=workers)


@EVERY
def test_an_error_of_the_server_comes_out_and_nothing_is_left(workers: int) -> None:
    def main(grid: Grid) -> None:
        pull(grid, push(grid, content(record(0)))[0])
        raise LookupError("the server's own")

    run_local(serve(lambda grid: None), toy_app.make, SITES, workers=workers)  # starts what stays for ever
    before = _left()
    for _ in range(2):
        with pytest.raises(LookupError, match="the server's own"):
            run_local(serve(main), toy_app.make, SITES, workers=workers)
        run_local(
            serve(lambda grid: ask(grid, content(record(0))) and None), toy_app.make, SITES, workers=workers
        )
    assert _left() == before


def _left() -> tuple[set[int], int]:
    """Child processes and the number of open files."""
    process = psutil.Process()
    return {child.pid for child in process.children(recursive=True)}, process.num_fds()


@EVERY
def test_threads_of_the_workers_and_of_this_process(workers: int) -> None:
    import torch

    before, answers = torch.get_num_threads(), []
    environment = dict(os.environ)
    ask_threads = serve(lambda grid: answers.extend(ask(grid, content(), "query")))
    run_local(ask_threads, toy_app.make_with_torch, ["a", "b"], workers=workers, threads=before + 1)
    assert [reply.content["config"]["site"] for reply in answers] == ["a", "b"]
    assert {reply.content["config"]["threads"] for reply in answers} == {before + 1}
    if workers:
        assert {reply.content["config"]["omp"] for reply in answers} == {str(before + 1)}
    assert torch.get_num_threads() == before
    assert dict(os.environ) == environment


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_of_the_server_does_not_grow_with_the_sites(workers: int) -> None:
    size = 16  # MB
    few, many = (float(_python(f"toy_app.print_peak({workers}, {sites}, {size})")) for sites in (4, 24))
    assert abs(many - few) < size


def test_flower_sends_nothing_home() -> None:
    script = "import os; print(os.environ['FLWR_TELEMETRY_ENABLED'], os.environ['RAY_USAGE_STATS_ENABLED'])"
    assert _python(script).split() == ["0", "0"]


def _python(script: str) -> str:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("FLWR_", "RAY_"))}
    command = [sys.executable, "-c", f"import toy_app; {script}"]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout


@EVERY
def test_a_message_to_nobody_is_refused(workers: int) -> None:
    def main(grid: Grid) -> None:
        with pytest.raises(ValueError, match="no site has node id 99"):
            push(grid, content(record(0)), nodes=[99])

    run_local(serve(main), toy_app.make, SITES, workers=workers)


def test_the_small_records_of_a_message_are_each_sites_own() -> None:
    replies: list[Message] = []

    def main(grid: Grid) -> None:
        shared = content(record(0))
        replies.extend(ask(grid, shared, "train"))
        assert dict(shared["config"]) == {}

    run_local(serve(main), toy_app.make, SITES, workers=0)
    assert len(replies) == 5

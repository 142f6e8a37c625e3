"""Steps that are compared side by side: each kind in a process of its own, one step at a time, in turn.

A process of its own has a peak memory of its own; taking turns lets other load on the machine hit all alike.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from fedbrats.bench.memory import peak_megabytes

Step = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """One step: seconds, and peak memory in MB above what the process held before the first.

    Without a GPU both are those of the process and one thread, and seconds are of CPU time, which other load hardly
    changes; with `gpu` they are seconds of the clock and memory of the GPU.
    """

    seconds: float
    megabytes: float


@dataclass(frozen=True, kw_only=True)
class Runner:
    """What is to be measured: `make`, which can be pickled, gives the step in the process; `turns` is how often."""

    make: Callable[[], Step]
    turns: int
    gpu: bool = False


def least_costs(runners: Sequence[Runner]) -> list[Cost | str]:
    """For each runner the least seconds and the highest peak of its turns, or why there are none."""
    processes = [_Process(runner) if runner.turns else None for runner in runners]
    costs: list[list[Cost | str]] = [[] for _ in runners]
    for turn in range(max(runner.turns for runner in runners)):
        for runner, process, found in zip(runners, processes, costs):
            if process is not None and turn < runner.turns:
                found.append(process.turn())
                if turn + 1 == runner.turns:  # what it holds is wanted by the others
                    process.close()
    return [_least(found) for found in costs]


class _Process:
    def __init__(self, runner: Runner) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_work, args=(runner, end))
        self.process.start()
        end.close()

    def turn(self) -> Cost | str:
        try:
            self.pipe.send(None)
            cost: Cost | str = self.pipe.recv()
            return cost
        except (EOFError, OSError):
            return "failed: the process died, of too little memory perhaps"

    def close(self) -> None:
        self.pipe.close()
        self.process.join()


def _work(runner: Runner, pipe: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        step = runner.make()
        before = _peak(runner.gpu)
        while True:
            pipe.recv()
            pipe.send(_timed(step, runner.gpu, before))
    except EOFError:
        return
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        pipe.send(f"failed: {reason[:100]}")


def _timed(step: Step, gpu: bool, before: float) -> Cost:
    clock = time.perf_counter if gpu else time.process_time
    started = clock()
    step()
    if gpu:
        torch.cuda.synchronize()
    return Cost(clock() - started, _peak(gpu) - before)


def _peak(gpu: bool) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if gpu else peak_megabytes()


def _least(found: Sequence[Cost | str]) -> Cost | str:
    failed = [cost for cost in found if isinstance(cost, str)]
    if failed or not found:
        return failed[0] if failed else "not run"
    costs = [cost for cost in found if isinstance(cost, Cost)]
    return Cost(min(cost.seconds for cost in costs), max(cost.megabytes for cost in costs))

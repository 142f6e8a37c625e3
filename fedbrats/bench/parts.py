"""What the federation costs on top of plain PyTorch, measured side by side on the phantom (`fedbrats bench`).

Each part yields rows (what, figure, bound) as they are measured, for a job whose size is written here. Parts that
compare memory run in processes of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbrats.bench.gpu import GpuJobs, gpu
from fedbrats.bench.growth import Sweep, long_memory, many_sites, robust_memory, sweep_of_jobs
from fedbrats.bench.jobs import Job
from fedbrats.bench.overhead import Idle, round_overhead, server_memory
from fedbrats.bench.privacy import Steps, private_step
from fedbrats.bench.rounds import Result
from fedbrats.bench.secure import Masked, masked_rounds
from fedbrats.bench.speed import engine_speed, patch_reading, ray_speed
from fedbrats.environment import describe_environment


@dataclass(frozen=True)
class Part:
    """One measurement: how it is made, of what, and about how many minutes it takes on two cores."""

    measure: Callable[[Path, Any], Iterator[Result]]
    job: Any
    minutes: float


PARTS = {
    "a": Part(engine_speed, Job(), 4),
    "b": Part(ray_speed, Job(), 2),
    "c": Part(round_overhead, Idle(sites=(20,)), 0.5),
    "d": Part(server_memory, Idle(sites=(5, 50)), 1),
    "e": Part(patch_reading, Job(sites=1, cases=2, shape=(240, 240, 155)), 1),
    "g": Part(private_step, Steps(), 9),
    "h": Part(many_sites, Job(sites=23, cases=2, shape=(48, 48, 32), patch=16, steps=2), 3),
    "m": Part(long_memory, Idle(sites=(20,), floats=500_000, rounds=200), 1),
    "r": Part(robust_memory, Idle(sites=(71,), rounds=1), 1),
    "s": Part(masked_rounds, Masked(), 12),
    "w": Part(sweep_of_jobs, Sweep(), 8),
    "gpu": Part(gpu, GpuJobs(), 8),
}


def machine() -> str:
    """The machine in words, for the table's title."""
    found = describe_environment()
    hardware, versions = found["hardware"], found["versions"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {gpus}; Python {versions['python']}, "
        f"torch {versions['torch']}, flwr {versions['flwr']}, {sys.platform}; commit {found['commit'] or 'unknown'}"
    )

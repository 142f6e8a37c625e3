"""Everything that a GPU is needed for, in one part (`fedbrats bench gpu`) that takes less than eight minutes.

What is compared with the CPU is compared in float32 after a few steps of plain SGD: an optimiser that divides by a
moment turns the last bit of a gradient into a whole step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fedbrats.bench.bare import bare_loop
from fedbrats.bench.jobs import Job, config_of
from fedbrats.bench.privacy import OURS, WAYS, case_of, compared, entries
from fedbrats.bench.rounds import Result, with_workers
from fedbrats.bench.speed import train_federation, work_of, write_job
from fedbrats.commands.models.table import config_of as model_config
from fedbrats.commands.models.table import measure, model_names
from fedbrats.config.schema import Config
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.models.build import patch_of

TOLERANCE = (
    0.01  # of the length of the CPU's update; convolutions of a GPU may be TF32 and add in another order
)
TOO_LITTLE = 0.005  # of the GPU's memory, for the message when there is too little


@dataclass(frozen=True)
class GpuJobs:
    """What is measured on the GPU."""

    device: str = "cuda"
    rate: Job = field(
        default=Job(sites=2, cases=2, shape=(160, 160, 144), patch=128, steps=20, rounds=3, filters=16)
    )
    many: Job = field(default=Job(sites=23, cases=2, patch=48, steps=4, rounds=3, filters=16))
    equal: Job = field(default=Job(sites=2, cases=2, patch=32, steps=4, rounds=1, filters=8))
    networks: tuple[str, ...] | None = None  # None: all there are
    size: str = "full"  # of the networks
    network_steps: int = 5
    private_side: int = 128  # voxels
    private_turns: int = 5
    workers: int = 4  # of the many sites, on one GPU

    def __str__(self) -> str:
        return f"rate: {self.rate}; many: {self.many}; equal: {self.equal}; networks at their papers' patch and batch"


def gpu(folder: Path, job: GpuJobs) -> Iterator[Result]:
    """Rate, equality with the CPU, every network, the private step, many sites on one GPU, too little memory."""
    if job.device == "cuda" and not torch.cuda.is_available():
        yield "(gpu)", "no GPU here", ""
        return
    for part in (rate, equal, networks, private, many, too_little):
        started = time.perf_counter()
        yield from part(folder / part.__name__, job)
        yield f"(gpu) {part.__name__}: took", f"{time.perf_counter() - started:.0f} s", ""


def _config(folder: Path, job: Job, device: str, *, amp: bool) -> Config:
    return with_workers(config_of(replace(job, device=device, amp=amp), folder), 1)


def rate(folder: Path, job: GpuJobs) -> Iterator[Result]:
    """Steps per second of the bare loop and of the federation, bf16; the first round, which chooses algorithms, not."""
    config = _config(folder, job.rate, job.device, amp=True)
    sites = write_job(folder, config)
    bare = bare_loop(str(folder), sites, ordered=True)
    per_round = bare.steps / len(bare.rounds)
    loop = per_round * (len(bare.rounds) - 1) / sum(bare.rounds[1:])
    yield "(gpu) bare loop, bf16", f"{loop:.2f} steps/s, {work_of(bare)}", ""
    trained = train_federation(folder, config, sites)
    each = trained.rounds.each
    ours = trained.steps / len(each) * (len(each) - 1) / sum(each[1:])
    work = f"{trained.steps} steps at {len(sites)} sites"
    yield "(gpu) federation, 1 worker, training and validation", f"{ours:.2f} steps/s, {work}", ""
    yield "(gpu) federation / bare loop, steps per second", f"{ours / loop:.2f}", ">= 0.90"


def equal(folder: Path, job: GpuJobs) -> Iterator[Result]:
    """The same federation on the CPU and on the GPU in float32: how far apart the updates of the model are."""
    found: dict[str, Mapping[str, Tensor]] = {}
    start: Mapping[str, Tensor] = {}
    for device in ("cpu", job.device):
        place = folder / f"on_{device}"
        config = _config(place, job.equal, device, amp=False)
        sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.01}
        config = replace(config, train=replace(config.train, optimizer=sgd))
        sites = write_job(place, config)
        start = initial_arrays(parts_of(config), None)
        found[device] = train_federation(place, config, sites).rounds.arrays
    ours, reference = found[job.device], found["cpu"]
    update = distance(reference, start)
    share = distance(ours, reference) / update
    steps = f"after {job.equal.all_steps} steps of SGD in float32"
    yield f"(gpu) difference to the CPU's update, {steps}", f"{share:.2g} of its length", f"<= {TOLERANCE}"


def distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Euclidean distance of two models, in float64."""
    squares = [(first[name].double() - second[name].double()).square().sum() for name in first]
    return float(torch.stack(squares).sum().sqrt())


def networks(folder: Path, job: GpuJobs) -> Iterator[Result]:
    """Seconds per training step and peak memory of every network at its paper's patch and batch."""
    for name in job.networks or model_names(size=job.size):
        config = model_config(name, size=job.size)
        what = f"(gpu) {name}, {config.train.batch} x {'x'.join(map(str, patch_of(config)))}"
        try:
            seconds, peak = measure(config, job.network_steps, job.device)
            yield what, f"{seconds:.3f} s/step, {peak / 1e9:.1f} GB", ""
        except torch.OutOfMemoryError as error:
            yield what, f"out of memory: {str(error).splitlines()[0][:100]}", ""
        finally:
            if job.device == "cuda":
                torch.cuda.empty_cache()


def private(folder: Path, job: GpuJobs) -> Iterator[Result]:
    """A private step beside a plain one, ours in bf16, and all in float32."""
    case = case_of(Job(filters=job.rate.filters), job.private_side, 2, job.device)
    gpu = job.device == "cuda"
    yield from compared(entries(replace(case, amp=gpu), OURS, job.private_turns))
    yield from compared(entries(case, WAYS, job.private_turns))


def many(folder: Path, job: GpuJobs) -> Iterator[Result]:
    """A federation of many institutions on one GPU."""
    config = with_workers(_config(folder, job.many, job.device, amp=True), job.workers)
    sites = write_job(folder, config)
    trained = train_federation(folder, config, sites)
    each = trained.rounds.each
    figure = f"{sum(each[1:]) / (len(each) - 1):.2f} s a round, {trained.steps} steps in all"
    yield f"(gpu) {len(sites)} sites, {job.workers} workers on one GPU", figure, ""


def too_little(folder: Path, job: GpuJobs) -> Iterator[Result]:
    """What a site says that is given too little memory of the GPU."""
    if job.device != "cuda":
        yield "(gpu) too little memory", "needs a GPU", ""
        return
    config = _config(folder, replace(job.rate, sites=1, rounds=1, steps=1), job.device, amp=True)
    config = replace(config, runtime=replace(config.runtime, memory_fraction=TOO_LITTLE))
    sites = write_job(folder, config)
    said = train_federation(folder, config, sites, may_fail=True).rounds.failed
    yield "(gpu) too little memory", said[0] if said else "it was enough", "CUDA out of memory: lower ..."

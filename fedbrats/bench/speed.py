"""The engines beside bare PyTorch, and the cache beside NIfTI: parts (a), (b) and (e)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.bench.bare import Loop, bare_loop, bare_loops
from fedbrats.bench.jobs import Job, config_of
from fedbrats.bench.rounds import Result, Rounds, federated_rounds, with_workers
from fedbrats.commands.run.run import write_inputs
from fedbrats.config.schema import Config
from fedbrats.data.nifti import read_volume
from fedbrats.data.patches import draw_batch
from fedbrats.data.prepare import prepare
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.site.app import make_client_app
from fedbrats.training.steps import StepCounts

READ_PATCH = 64  # voxels along each side, of part (e)


@dataclass(frozen=True)
class Trained:
    """A federation that has run, and the steps that its sites were seen to take."""

    rounds: Rounds
    steps: int


def write_job(folder: Path, config: Config) -> list[str]:
    """Generate, preprocess and deal the phantom and write the inputs of a run; names of the training sites."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared = prepare(config.data, config.partition, workers=2, say=lambda text: None)
    write_inputs(folder, config, prepared, [])
    return [site.name for site in prepared.sites]


def train_federation(folder: Path, config: Config, sites: list[str], **options: Any) -> Trained:
    """Run the federation whose inputs `folder` holds."""
    counts = StepCounts.create(folder / "steps", sites)
    client = partial(make_client_app, str(folder), counts)
    rounds = federated_rounds(
        folder, config, sites, client, initial_arrays(parts_of(config), None), **options
    )
    return Trained(rounds, sum(counts.of(site) for site in sites))


def work_of(loop: Loop) -> str:
    """What a loop was seen to do, in words."""
    shapes = ", ".join(sorted({f"{s[0]} x {'x'.join(map(str, s[2:]))}" for s in loop.shapes}))
    return f"{loop.steps} steps of {shapes}"


def engine_speed(folder: Path, job: Job) -> Iterator[Result]:
    """(a) The local engine beside bare PyTorch: the same steps in the same number of processes."""
    config = config_of(job, folder)
    sites = write_job(folder, config)
    loops = [bare_loop(str(folder), sites) for _ in range(2)]
    one = statistics.median(loop.seconds for loop in loops)
    yield "bare PyTorch loop, 1 process, median of 2", f"{one:.2f} s, {work_of(loops[0])}", ""
    last = bare_loop(str(folder), sites, ordered=True)
    yield "bare PyTorch loop, 1 process, channels_last_3d", f"{last.seconds:.2f} s, {work_of(last)}", ""
    two = bare_loops(str(folder), [sites[0::2], sites[1::2]])
    yield "bare PyTorch loops, 2 processes", f"{two.seconds:.2f} s, {work_of(two)}", ""
    ours = {}
    for workers in (0, 2):
        trained = train_federation(folder, with_workers(config, workers), sites)
        ours[workers] = trained.rounds
        times = f"{trained.rounds.whole:.2f} s / {sum(trained.rounds.each):.2f} s"
        work = f"{trained.steps} steps at {len(sites)} sites"
        yield f"local engine, {workers} workers, whole / rounds", f"{times}, {work}", ""
    whole = {workers: rounds.whole for workers, rounds in ours.items()}
    yield "(a) this process / bare loop, 1 process", f"{whole[0] / one:.2f}", "<= 1.10"
    yield "(a) this process / bare loop, channels_last_3d", f"{whole[0] / last.seconds:.2f}", "<= 1.10"
    yield "(a) 2 workers / bare loops in 2 processes", f"{whole[2] / two.seconds:.2f}", "<= 1.10"
    yield "(a) 2 workers, whole run / bare loop, 1 process", f"{whole[2] / one:.2f}", "<= 0.60"


def ray_speed(folder: Path, job: Job) -> Iterator[Result]:
    """(b) The same federation on Flower's own simulation."""
    try:
        import ray  # noqa: F401
    except ImportError:
        yield "(b) ray engine", "not installed: pip install -e '.[ray]'", ""
        return
    config = config_of(job, folder)
    sites = write_job(folder, config)
    one = bare_loop(str(folder), sites)
    yield "bare PyTorch loop, 1 process", f"{one.seconds:.2f} s, {work_of(one)}", ""
    trained = train_federation(folder, with_workers(config, 2, "ray"), sites)
    whole = trained.rounds.whole
    work = f"{trained.steps} steps at {len(sites)} sites"
    yield "(b) ray engine, whole / rounds", f"{whole:.2f} s / {sum(trained.rounds.each):.2f} s, {work}", ""
    yield "(b) ray engine, whole run / bare loop, 1 process", f"{whole / one.seconds:.2f}", ""


def patch_reading(folder: Path, job: Job) -> Iterator[Result]:
    """(e) A random patch from the cache, and from the NIfTI files, of a case of full size."""
    config = config_of(job, folder)
    prepared = prepare(config.data, config.partition, workers=1, say=lambda text: None)
    case = next(iter(prepared.cached.values()))
    side = min(READ_PATCH, *job.shape)
    rng = np.random.default_rng(0)
    draw = partial(draw_batch, [case], rng, patch=(side,) * 3, batch=1, tumour_share=1 / 3)
    files = sorted(Path(config.data.cache).rglob(f"{case.name}_*.nii.gz"))
    cached = statistics.median(_seconds(draw) for _ in range(50))
    nifti = statistics.median(_seconds(lambda: [read_volume(file) for file in files]) for _ in range(3))
    of = "x".join(map(str, read_volume(files[0])[0].shape))
    yield f"(e) {side}^3 patch of {of}: cache / NIfTI", f"{1000 * cached:.1f} ms / {1000 * nifti:.0f} ms", ""


def _seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started

"""What grows with the size of a study: many sites, many rounds, many jobs. Parts (h), (m), (r) and (w)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fedbrats.algorithms.rules.median import CoordinateMedian
from fedbrats.bench.bare import Loop, bare_loops
from fedbrats.bench.jobs import Job, config_of
from fedbrats.bench.overhead import Idle, idle_rounds, megabytes, peak_of_idle
from fedbrats.bench.rounds import Result, with_workers
from fedbrats.bench.speed import train_federation, work_of, write_job
from fedbrats.bench.stock import stock_rounds

EARLY = 20  # rounds after which memory should grow no more
PEERS = 5.0  # times the overhead of Flower's own simulation


def many_sites(folder: Path, job: Job) -> Iterator[Result]:
    """(h) Many sites with little to do: the local engine and Flower's simulation beside bare loops, in the same hour.

    The overhead of a round is what it takes beyond the bare loop in as many processes, of the quickest rounds but
    the first, in which Flower's actors begin.
    """
    config = config_of(job, folder)
    sites = write_job(folder, config)
    groups = {1: [sites], 2: [sites[0::2], sites[1::2]]}  # in channels_last_3d, which the sites use
    bare = {n: bare_loops(str(folder), of, ordered=True) for n, of in groups.items()}
    for processes, loop in bare.items():
        yield f"bare PyTorch loop, {processes} processes", f"{loop.seconds:.2f} s, {work_of(loop)}", ""
    whole, overhead = {}, {}
    engines = [("local", 1), ("local", 2), *([("ray", 2)] if find_spec("ray") else [])]
    for engine, workers in engines:
        trained = train_federation(folder, with_workers(config, workers, engine), sites)
        inside, name = sum(trained.rounds.each), f"{engine} engine, {workers} workers"
        whole[name], overhead[name] = trained.rounds.whole, _beyond(trained.rounds.each, bare[workers])
        work = f"{trained.steps} steps at {len(sites)} sites"
        figure = f"{trained.rounds.whole:.2f} s / {inside:.2f} s / {overhead[name]:.3f} s, {work}"
        yield f"(h) {name}, whole / rounds / overhead of a round", figure, ""
    if "ray engine, 2 workers" not in whole:
        yield "(h) Flower's simulation on ray", "not installed: pip install -e '.[ray]'", ""
        return
    stock = stock_rounds(folder, with_workers(config, 2, "ray"), sites)
    inside, name = sum(stock.each), "Flower's simulation as it comes, 2 actors"
    whole[name], overhead[name] = stock.whole, _beyond(stock.each, bare[2])
    figure = f"{stock.whole:.2f} s / {inside:.2f} s / {overhead[name]:.3f} s"
    yield f"(h) {name}, whole / rounds / overhead of a round", figure, ""
    ours, theirs = "local engine, 2 workers", name
    times = overhead[theirs] / max(overhead[ours], 1e-3)
    yield "(h) overhead of a round, Flower's / local, 2 workers", f"{times:.1f}", f">= {PEERS:g}"
    yield "(h) whole, local / Flower's, 2 workers", f"{whole[ours] / whole[theirs]:.2f}", "<= 1"


def _beyond(rounds: Sequence[float], bare: Loop) -> float:
    """Seconds of the quickest round but the first beyond that of the bare loop: others on the machine only add."""
    return min(rounds[1:]) - min(bare.rounds[1:])


def long_memory(folder: Path, job: Idle) -> Iterator[Result]:
    """(m) Memory of a process in which many rounds go, early and at the end."""
    (sites,) = job.sites
    found = idle_rounds(folder, job, sites, 0).megabytes
    early, late = found[min(EARLY, len(found) // 2) - 1], found[-1]
    after = f"{min(EARLY, len(found) // 2)} and {len(found)} rounds"
    what = f"(m) resident after {after}, {sites} sites, {megabytes(job.floats)}"
    yield what, f"{early:.0f} / {late:.0f} MB, growth {100 * (late / early - 1):+.2f} %", "<= 2 %"


def robust_memory(folder: Path, job: Idle) -> Iterator[Result]:
    """(r) Peak memory of a server that holds the replies of all sites at once, beside one that need not."""
    (sites,) = job.sites
    mean = peak_of_idle(folder, job, sites, 0)
    median = peak_of_idle(folder, job, sites, 0, CoordinateMedian())
    replies = 4e-6 * job.floats * sites
    yield f"(r) peak with a mean, {sites} sites, {megabytes(job.floats)}", f"{mean:.0f} MB", ""
    figure = f"{median:.0f} MB, {median - mean:+.0f} MB for replies of {replies:.0f} MB"
    yield "(r) peak with the median of every number", figure, f"<= {1.5 * replies:.0f} MB more"


@dataclass(frozen=True)
class Sweep:
    """Jobs of a sweep: strategies times seeds, each with a federated and a pooled arm."""

    strategies: tuple[str, ...] = ("fedavg", "fedprox", "fedavgm", "fedadam")
    seeds: int = 5
    overrides: tuple[str, ...] = (
        "model=segresnet",
        "model.size=small",
        "train=small",
        "train.local_steps=4",
        "train.patch=[16,16,16]",
        "data.phantom.sites={TCIA01:5,TCIA02:4,CBICA:4,TCIA13:2}",
        "data.phantom.shape=[32,32,24]",
        "partition.holdout=[TCIA13]",
        "arms=[federated,pooled]",
        "rounds=3",
    )

    def __str__(self) -> str:
        return (
            f"{len(self.strategies)} strategies x {self.seeds} seeds of a tiny federation and its pooled arm"
        )


def sweep_of_jobs(folder: Path, job: Sweep) -> Iterator[Result]:
    """(w) One sweep beside as many runs, each a command of its own; all share a cache that is there before."""
    common = [*job.overrides, f"data.cache={folder / 'cache'}"]
    _run(folder, [*common, f"hydra.run.dir={folder / 'before'}", "arms=[federated]", "rounds=1"])
    swept = [f"hydra.sweep.dir={folder / 'sweep'}", f"strategy={','.join(job.strategies)}"]
    started = time.perf_counter()
    _run(folder, ["-m", *common, *swept, f"seed={','.join(map(str, range(job.seeds)))}"])
    whole = time.perf_counter() - started
    jobs = len(list((folder / "sweep").glob("*/summary.json")))
    yield "(w) one sweep", f"{whole:.1f} s for {jobs} jobs", ""
    started = time.perf_counter()
    for number, (strategy, seed) in enumerate((s, k) for s in job.strategies for k in range(job.seeds)):
        own = [f"strategy={strategy}", f"seed={seed}", f"hydra.run.dir={folder / 'runs' / str(number)}"]
        _run(folder, [*common, *own])
    alone = time.perf_counter() - started
    runs = len(list((folder / "runs").glob("*/summary.json")))
    yield "(w) as many runs", f"{alone:.1f} s for {runs} runs", ""
    yield "(w) one sweep / as many runs", f"{whole / alone:.2f}", "<= 0.6"


def _run(folder: Path, overrides: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fedbrats", "run", *overrides]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

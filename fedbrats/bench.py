"""What the federation costs on top of plain PyTorch, measured side by side on the phantom (`python sims/bench.py`).

Each part returns rows (what, figure, bound). Parts that compare memory run in processes of their own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from hydra.utils import instantiate
from torch import Tensor

from fedbrats.algorithms.fedavg import FedAvg, WeightedMean
from fedbrats.bench_toy import ToyNetwork, toy_client_app
from fedbrats.config import Config
from fedbrats.data.nifti import read_volume
from fedbrats.data.patches import draw_batch
from fedbrats.data.prepare import prepare
from fedbrats.federation.arms import FEDERATED, Cohort
from fedbrats.federation.asking import join
from fedbrats.federation.checkpoint import Model
from fedbrats.federation.record import Row
from fedbrats.federation.server import Federation, run_round
from fedbrats.federation.site import SiteRuntime, make_client_app
from fedbrats.losses import region_targets
from fedbrats.run import initial_arrays, start_engine, write_inputs
from fedbrats.seeding import generator
from fedbrats.training import batches

Result = tuple[str, str, str]
OVERHEAD_ROUNDS = 5


class Silent:
    """An observer that shows nothing."""

    def round_started(self, round_: int, expected_replies: int) -> None: ...

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None: ...

    def round_finished(self, round_: int, rows: list[Row]) -> None: ...


def _prepared(folder: Path, config: Config) -> list[str]:
    """Generate, preprocess and deal the phantom and write the inputs of a run; names of the training sites."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared = prepare(config.data, config.partition, workers=2, say=lambda text: None)
    write_inputs(folder, config, prepared, [])
    return [site.name for site in prepared.sites]


def bare_loop(folder: str, sites: Sequence[str], channels_last: bool = False, ready: Any = None) -> float:
    """Seconds of a plain PyTorch loop: in each round, at each site, the same steps on the same cases, then the mean.

    Network, optimiser, loss, patches and augmentation are those of a run; there is no Flower, no message, no check.
    """
    runtime = SiteRuntime(Path(folder))
    config, train = runtime.config, runtime.config.train
    torch.set_num_threads(config.runtime.threads)
    network = instantiate(config.model).to(runtime.device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last_3d)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cases = {site: runtime.cases(site).train for site in sites}
    if ready is not None:
        ready.wait()
    started = time.perf_counter()
    for round_ in range(config.rounds):
        mean = WeightedMean()
        for site in sites:
            network.load_state_dict(weights)
            network.train()
            optimizer = instantiate(train.optimizer)(network.parameters())
            rng = generator(0, site, round_)
            for images, labels in batches(cases[site], rng, train, runtime.steps(site), runtime.device):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(runtime.device.type, dtype=torch.bfloat16, enabled=runtime.amp):
                    logits = network(images)
                runtime.loss(logits.float(), region_targets(labels).float()).mean().backward()
                optimizer.step()
            mean.add({name: t.cpu().numpy() for name, t in network.state_dict().items()}, len(cases[site]))
        weights = mean.arrays
    return time.perf_counter() - started


def _bare_child(folder: str, sites: Sequence[str], ready: Any, results: Any) -> None:
    results.put(bare_loop(folder, sites, ready=ready))


def bare_loops(folder: str, groups: Sequence[Sequence[str]]) -> float:
    """Seconds of bare loops side by side, one process per group of sites, from a common start to the slowest end."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(len(groups)), context.Queue()
    children = [context.Process(target=_bare_child, args=(folder, group, ready, results)) for group in groups]
    for child in children:
        child.start()
    seconds = [results.get() for _ in groups]
    for child in children:
        child.join()
    return max(seconds)


def _federation(folder: Path, config: Config, sites: Sequence[str], arrays: dict[str, Tensor]) -> Federation:
    return Federation(
        algorithm=FedAvg(),
        cohorts=[Cohort(FEDERATED, tuple(sites))],
        models={FEDERATED: Model(arrays)},
        folder=folder,
        rounds=config.rounds,
        observer=Silent(),
        evaluate_every=config.runtime.evaluate_every,
    )


def federated_rounds(
    folder: Path, config: Config, sites: list[str], client: Callable[[], ClientApp], arrays: dict[str, Tensor]
) -> tuple[float, list[float]]:
    """Seconds of the whole engine call, starting its processes included, and of each round in it."""
    fed = _federation(folder, config, sites, arrays)
    rounds: list[float] = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        fed.members = join(grid, fed.expected, sites, 600)
        for round_ in range(1, config.rounds + 1):
            started = time.perf_counter()
            rows = run_round(grid, fed, round_)
            rounds.append(time.perf_counter() - started)
            assert all(row["status"] == "ok" for row in rows), rows

    started = time.perf_counter()
    start_engine(config, app, client, sites, dict.fromkeys(sites, 1.0))
    return time.perf_counter() - started, rounds


def _with_workers(config: Config, workers: int, engine: str = "local") -> Config:
    return replace(config, runtime=replace(config.runtime, workers=workers, engine=engine))


def engine_speed(folder: Path, config: Config) -> list[Result]:
    """(a) The local engine beside bare PyTorch: the same steps in the same number of processes."""
    sites = _prepared(folder, config)
    client = partial(make_client_app, str(folder))
    one = statistics.median(bare_loop(str(folder), sites) for _ in range(2))
    one_last = bare_loop(str(folder), sites, channels_last=True)
    two = bare_loops(str(folder), [sites[0::2], sites[1::2]])
    ours = {
        w: federated_rounds(folder, _with_workers(config, w), sites, client, initial_arrays(config))
        for w in (0, 2)
    }
    return [
        ("bare PyTorch loop, 1 process", f"{one:.2f} s", ""),
        ("bare PyTorch loop, 1 process, channels_last_3d", f"{one_last:.2f} s", ""),
        ("bare PyTorch loop, 2 processes", f"{two:.2f} s", ""),
        *(
            (f"local engine, {w} workers, whole / rounds", f"{whole:.2f} s / {sum(rounds):.2f} s", "")
            for w, (whole, rounds) in ours.items()
        ),
        ("(a) this process / bare loop, 1 process", f"{ours[0][0] / one:.2f}", "<= 1.10"),
        ("(a) this process / bare loop, channels_last_3d", f"{ours[0][0] / one_last:.2f}", "<= 1.10"),
        ("(a) 2 workers / bare loops in 2 processes", f"{ours[2][0] / two:.2f}", "<= 1.10"),
        ("(a) 2 workers, whole run / bare loop, 1 process", f"{ours[2][0] / one:.2f}", "<= 0.60"),
    ]


def ray_speed(folder: Path, config: Config) -> list[Result]:
    """(b) The same federation on Flower's own simulation."""
    try:
        import ray  # noqa: F401
    except ImportError:
        return [("(b) ray engine", "not installed: pip install -e '.[ray]'", "")]
    sites = _prepared(folder, config)
    client = partial(make_client_app, str(folder))
    one = bare_loop(str(folder), sites)
    whole, rounds = federated_rounds(
        folder, _with_workers(config, 2, "ray"), sites, client, initial_arrays(config)
    )
    return [
        ("(b) ray engine, whole / rounds", f"{whole:.2f} s / {sum(rounds):.2f} s", ""),
        ("(b) ray engine, whole run / bare loop, 1 process", f"{whole / one:.2f}", ""),
    ]


def _toy_rounds(folder: Path, config: Config, sites: int, workers: int) -> list[float]:
    config = replace(_with_workers(config, workers), rounds=OVERHEAD_ROUNDS)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    arrays = {name: p.detach().clone() for name, p in ToyNetwork().named_parameters()}
    names = [f"site-{i:02d}" for i in range(sites)]
    return federated_rounds(folder, config, names, toy_client_app, arrays)[1]


def round_overhead(folder: Path, config: Config) -> list[Result]:
    """(c) Seconds per round, training and evaluation, with 20 sites that do nothing and a 20 MB network."""
    rows = []
    for workers, bound in ((0, 0.2), (2, 0.5)):
        rounds = _toy_rounds(folder, config, 20, workers)[1:]  # the first one touches fresh memory
        where = "in this process" if workers == 0 else f"with {workers} workers"
        rows.append(
            (f"(c) round of 20 sites, 20 MB, {where}", f"{statistics.median(rounds):.3f} s", f"<= {bound} s")
        )
    return rows


def _peak_of_toy(folder: str, config: Config, sites: int, workers: int, results: Any) -> None:
    _toy_rounds(Path(folder), config, sites, workers)
    results.put(_peak_megabytes())


def _peak_megabytes() -> float:
    """Peak resident memory of this process. Not getrusage on Linux: its peak includes the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def server_memory(folder: Path, config: Config) -> list[Result]:
    """(d) Peak memory of the server process (MB) with 5 and with 50 sites."""
    context, rows = multiprocessing.get_context("spawn"), []
    for workers in (0, 2):
        peaks = {}
        for sites in (5, 50):
            results = context.Queue()
            child = context.Process(target=_peak_of_toy, args=(str(folder), config, sites, workers, results))
            child.start()
            peaks[sites] = results.get()
            child.join()
        where = "in this process" if workers == 0 else f"with {workers} workers"
        difference = f"{peaks[5]:.0f} / {peaks[50]:.0f} MB, difference {peaks[50] - peaks[5]:+.1f} MB"
        rows.append((f"(d) server peak, 5 / 50 sites, {where}", difference, "<= 20 MB"))
    return rows


def patch_reading(folder: Path, config: Config) -> list[Result]:
    """(e) A random 64^3 patch from the cache, and from the NIfTI files, of a case of full size."""
    shape = [240, 240, 155]
    phantom = replace(config.data.phantom, sites={"TCIA01": 2}, shape=shape)
    prepared = prepare(
        replace(config.data, phantom=phantom), config.partition, workers=1, say=lambda text: None
    )
    case = next(iter(prepared.cached.values()))
    rng = np.random.default_rng(0)
    draw = partial(draw_batch, [case], rng, patch=(64, 64, 64), batch=1, tumour_share=1 / 3)
    files = sorted(Path(config.data.cache).rglob(f"{case.name}_*.nii.gz"))
    cached = statistics.median(_seconds(draw) for _ in range(50))
    nifti = statistics.median(_seconds(lambda: [read_volume(file) for file in files]) for _ in range(3))
    return [("(e) 64^3 patch: cache / NIfTI", f"{1000 * cached:.1f} ms / {1000 * nifti:.0f} ms", "")]


def _seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def gpu_speed(folder: Path, config: Config) -> list[Result]:
    """(f) Steps per second of the bare loop and of the federation at 128^3, SegResNet, bf16, where there is a GPU."""
    if not torch.cuda.is_available():
        return [("(f) steps per second on a GPU", "no GPU here", "")]
    big = replace(
        config,
        data=replace(config.data, phantom=replace(config.data.phantom, shape=[160, 160, 144])),
        model={**config.model, "init_filters": 16},
        train=replace(config.train, patch=[128, 128, 128]),
        runtime=replace(config.runtime, device="cuda", workers=1),
    )
    sites = _prepared(folder, big)
    client = partial(make_client_app, str(folder))
    steps = len(sites) * big.rounds * int(big.train.local_steps or 0)
    bare = bare_loop(str(folder), sites, channels_last=True)
    whole, rounds = federated_rounds(folder, big, sites, client, initial_arrays(big))
    return [
        ("(f) GPU bare loop", f"{steps / bare:.2f} steps/s", ""),
        (
            "(f) GPU federation, whole / rounds",
            f"{steps / whole:.2f} / {steps / sum(rounds):.2f} steps/s",
            "",
        ),
    ]


PARTS: dict[str, Callable[[Path, Config], list[Result]]] = {
    "a": engine_speed,
    "b": ray_speed,
    "c": round_overhead,
    "d": server_memory,
    "e": patch_reading,
    "f": gpu_speed,
}


def machine() -> str:
    """The machine in words, for the table's title."""
    from fedbrats.environment import describe_environment

    found = describe_environment()
    hardware, versions = found["hardware"], found["versions"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {gpus}; Python {versions['python']}, "
        f"torch {versions['torch']}, flwr {versions['flwr']}, {sys.platform}"
    )

"""The local engine: a Flower ServerApp and ClientApp on this machine, without Ray and without a SuperLink."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedbrats.devices import GPUS, visible_gpus
from fedbrats.engines.grids import InProcessGrid
from fedbrats.engines.memory import keep_freed_memory
from fedbrats.engines.sites import SERVER_NODE, assign, new_context, node_configs, set_identity
from fedbrats.engines.warm import warm_up
from fedbrats.engines.worker import Settings, limit_torch
from fedbrats.engines.worker_grid import WorkerGrid
from fedbrats.federation import flower_env


def run_local(
    server_app: ServerApp,
    make_client_app: Callable[[], ClientApp],
    sites: Sequence[str],
    *,
    workers: int,
    threads: int = 1,
    load: Mapping[str, float] | None = None,
    memory_fraction: float | None = None,
    device: str = "cpu",
) -> None:
    """Run `server_app` to its end with one node per site; it hands out its results by closure.

    Arguments and errors are those of `local_grid`; what `server_app` raises comes out after the workers have
    been ended.
    """
    with local_grid(
        make_client_app,
        sites,
        workers=workers,
        threads=threads,
        load=load,
        memory_fraction=memory_fraction,
        device=device,
    ) as grid:
        server_app(grid, new_context(SERVER_NODE))


@contextmanager
def local_grid(
    make_client_app: Callable[[], ClientApp],
    sites: Sequence[str],
    *,
    workers: int,
    threads: int = 1,
    load: Mapping[str, float] | None = None,
    memory_fraction: float | None = None,
    device: str = "cpu",
) -> Iterator[Grid]:
    """A Grid with one node per site, and the processes behind it for as long as the context lasts.

    Site i is node i + 2 with the node config {"partition-id": i, "num-partitions": n, "site": name}. Every site
    stays in one worker for the whole run, which keeps its ClientApp (one per worker), the sites' Contexts and
    whatever the ClientApp caches. A site that raises, or whose worker dies, gives an error reply.

    Only one at a time in a process: Flower's TaskIdentity and torch's threads belong to the process.

    Args:
        make_client_app: picklable callable without arguments (top-level function or `functools.partial` of one).
        sites: names, all different.
        workers: processes; 0 does everything in this process, a site's work when its reply is pulled.
        threads: torch threads of each worker (of this process during the run if `workers` is 0).
        load: expected work of each site in any unit, to share out the sites; None takes all as equal.
        memory_fraction: of its GPU that each worker may use at most; None sets no limit.
        device: "cpu", "cuda" (the workers take turns over the visible GPUs) or "cuda:<index>".

    Raises:
        ValueError: no sites, equal names, a site without load, fewer than 0 workers or 1 thread.
        WorkerError: a worker process cannot start; raised by the Grid's methods.
    """
    if workers < 0 or threads < 1:
        raise ValueError(f"workers must be at least 0 and threads at least 1, got {workers} and {threads}")
    configs = node_configs(sites)
    flower_env.quiet()
    keep_freed_memory()
    set_identity(SERVER_NODE)
    if workers == 0:
        with _torch_limits(threads, device, memory_fraction):
            yield InProcessGrid(make_client_app(), configs)
        return
    nodes = list(configs)
    groups = [[nodes[i] for i in group] for group in assign(sites, load, workers)]
    settings = Settings(pickle.dumps(make_client_app), threads, device, memory_fraction)
    warm_up()
    grid = WorkerGrid(configs, groups, settings, _environments(len(groups), threads, device))
    try:
        grid.start()
        yield grid
    except BaseException:
        grid.close(kill=True)
        raise
    grid.close()


def _environments(workers: int, threads: int, device: str) -> list[dict[str, str]]:
    """Environment variables of each worker: threads of the numeric libraries, and the worker's GPU."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environments = [dict.fromkeys(names, str(threads)) for _ in range(workers)]
    if device == "cuda":
        gpus = visible_gpus()
        for i, environment in enumerate(environments):
            if gpus:
                environment[GPUS] = gpus[i % len(gpus)]
    return environments


@contextmanager
def _torch_limits(threads: int, device: str, memory_fraction: float | None) -> Iterator[None]:
    """torch's limits for the length of a run in this process."""
    import torch

    before = torch.get_num_threads()
    limit_torch(threads, device, memory_fraction)
    try:
        yield
    finally:
        limit_torch(before, device, None if memory_fraction is None else 1.0)

"""What the federation costs on top of plain PyTorch, measured side by side on the phantom (`python sims/bench.py`)."""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from hydra.utils import instantiate

from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.config import Config
from fedbrats.data.patches import draw_batch
from fedbrats.data.prepare import prepare
from fedbrats.federation import exchange, toy_site
from fedbrats.federation.arms import Cohort
from fedbrats.federation.asking import join
from fedbrats.federation.server import Federation, run_round
from fedbrats.federation.checkpoint import Model
from fedbrats.federation.site import SiteRuntime
from fedbrats.progress import SilentProgress
from fedbrats.run import initial_arrays, site_loads, start_engine, write_inputs
from fedbrats.seeding import generator
from fedbrats.training import batches, train_locally

Row = tuple[str, str, str]  # what, figure, bound
SITES = 5
ROUNDS = 5
STEPS = 8


def prepare_run(folder: Path, config: Config) -> list[Any]:
    """Generate, preprocess and deal the phantom of `config` and write the run's inputs to `folder`; its sites."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared = prepare(config.data, config.partition, workers=2, say=lambda text: None)
    write_inputs(folder, config, prepared, [])
    return prepared.sites


def bare_loop(folder: str, sites: Sequence[str], rounds: int, ready: Any = None) -> float:
    """Seconds of a plain PyTorch loop: at each site the same steps on the same cached cases, then the mean.

    The optimiser, the loss, the patches and the augmentation are those of the sites; there is no Flower, no message
    and no checkpoint. The network keeps PyTorch's default memory format.
    """
    runtime = SiteRuntime(Path(folder))
    torch.set_num_threads(runtime.config.runtime.threads)
    network, device = instantiate(runtime.config.model), torch.device("cpu")
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cases = {site: runtime.cases(site).train for site in sites}
    if ready is not None:
        ready.wait()
    started = time.perf_counter()
    for round_ in range(rounds):
        mean = WeightedMean()
        for site in sites:
            network.load_state_dict(weights)
            optimizer = instantiate(runtime.config.train.optimizer)(network.parameters())
            rng = generator(0, site, round_)
            data = batches(cases[site], rng, runtime.config.train, STEPS, device, channels_last=False)
            train_locally(network, optimizer, runtime.loss, runtime.algorithm, data, lr_factor=1.0)
            arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
            mean.add(arrays, len(cases[site]))
        weights = mean.arrays
    return time.perf_counter() - started


def bare_loops(folder: str, groups: Sequence[Sequence[str]], rounds: int) -> float:
    """Seconds until the slowest of several bare loops side by side is done, one process per group of sites."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(len(groups))
    with context.Pool(len(groups), initializer=_keep, initargs=(ready,)) as pool:
        return max(pool.starmap(_bare_in_group, [(folder, group, rounds) for group in groups], chunksize=1))


_ready: Any = None


def _keep(ready: Any) -> None:
    global _ready
    _ready = ready


def _bare_in_group(folder: str, group: Sequence[str], rounds: int) -> float:
    return bare_loop(folder, group, rounds, _ready)

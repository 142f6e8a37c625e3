"""The same work in bare PyTorch: no Flower, no message, no check."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.models.build import build_network, channels_last
from fedbrats.seeding import generator
from fedbrats.tasks.segmentation import targets
from fedbrats.training.batches import batches


@dataclass(frozen=True)
class Loop:
    """A loop that has run, and what it was seen to do."""

    seconds: float
    rounds: list[float]  # seconds of each
    steps: int
    shapes: set[tuple[int, ...]]  # of the batches: B, channels and sides


def bare_loop(folder: str, sites: Sequence[str], ordered: bool = False, ready: Any = None) -> Loop:
    """A plain PyTorch loop: in each round, at each site, the same steps on the same cases, then the mean.

    Network, optimiser, loss, patches and augmentation are those of a run.

    Args:
        folder: with the inputs of a run.
        sites: that train.
        ordered: in channels_last_3d, which the sites use.
        ready: a barrier to wait at before the clock starts.
    """
    warm = Warm(Path(folder))
    config = warm.config
    torch.set_num_threads(config.runtime.threads)
    network = build_network(config.model).to(warm.device)
    if ordered:
        network = channels_last(network)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    opened = {name: Site(name, warm) for name in sites}
    steps, shapes, ends = 0, set[tuple[int, ...]](), []
    if ready is not None:
        ready.wait()
    started = time.perf_counter()
    for round_ in range(config.rounds):
        mean = WeightedMean()
        for site in sites:
            network.load_state_dict(weights)
            trained = train_bare(network, warm, opened[site], round_)
            steps, shapes = steps + len(trained), shapes.union(trained)
            arrays = {name: t.cpu().numpy() for name, t in network.state_dict().items()}
            mean.take(arrays, len(opened[site].cases.train))
        weights = mean.arrays
        ends.append(time.perf_counter())
    rounds = [end - start for start, end in zip([started, *ends], ends)]
    return Loop(ends[-1] - started, rounds, steps, shapes)


def train_bare(network: torch.nn.Module, warm: Warm, site: Site, round_: int) -> list[tuple[int, ...]]:
    """Train `network` on the cases of `site` as long as a round of it lasts; the shape of every batch."""
    train, loss = warm.config.train, warm.parts.loss
    network.train()
    optimizer = instantiate(train.optimizer)(network.parameters())
    rng, shapes = generator(0, site.name, round_), []
    work = (train, warm.parts.rules, site.steps(), warm.device)
    for images, labels in batches(site.cases.train, rng, *work):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(warm.device.type, dtype=torch.bfloat16, enabled=warm.amp):
            logits = network(images)
        loss(logits.float(), targets(labels, logits.shape[1]).float()).mean().backward()
        optimizer.step()
        shapes.append(tuple(images.shape))
    return shapes


def _child(folder: str, sites: Sequence[str], ordered: bool, ready: Any, results: Any) -> None:
    results.put(bare_loop(folder, sites, ordered, ready))


def bare_loops(folder: str, groups: Sequence[Sequence[str]], ordered: bool = False) -> Loop:
    """Bare loops side by side, one process per group of sites, from a common start to the slowest end."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(len(groups)), context.Queue()
    children = [
        context.Process(target=_child, args=(folder, group, ordered, ready, results)) for group in groups
    ]
    for child in children:
        child.start()
    loops: list[Loop] = [results.get() for _ in groups]
    for child in children:
        child.join()
    slowest = max(loops, key=lambda loop: loop.seconds)
    steps, shapes = sum(loop.steps for loop in loops), set().union(*(loop.shapes for loop in loops))
    return Loop(slowest.seconds, slowest.rounds, steps, shapes)

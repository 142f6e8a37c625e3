"""The engines beside bare PyTorch, and the cache beside NIfTI: parts (a), (b), (e) and (f)."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate

from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.bench.rounds import Result, federated_rounds, with_workers
from fedbrats.commands.run.run import write_inputs
from fedbrats.config.schema import Config
from fedbrats.data.nifti import read_volume
from fedbrats.data.patches import draw_batch
from fedbrats.data.prepare import prepare
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.site.app import make_client_app
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.models.build import build_network, channels_last
from fedbrats.seeding import generator
from fedbrats.tasks.segmentation import targets
from fedbrats.training.batches import batches


def _prepared(folder: Path, config: Config) -> list[str]:
    """Generate, preprocess and deal the phantom and write the inputs of a run; names of the training sites."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared = prepare(config.data, config.partition, workers=2, say=lambda text: None)
    write_inputs(folder, config, prepared, [])
    return [site.name for site in prepared.sites]


def bare_loop(folder: str, sites: Sequence[str], ordered: bool = False, ready: Any = None) -> float:
    """Seconds of a plain PyTorch loop: in each round, at each site, the same steps on the same cases, then the mean.

    Network, optimiser, loss, patches and augmentation are those of a run; there is no Flower, no message, no check.
    """
    warm = Warm(Path(folder))
    config, train, loss = warm.config, warm.config.train, warm.parts.loss
    torch.set_num_threads(config.runtime.threads)
    network = build_network(config.model).to(warm.device)
    if ordered:
        network = channels_last(network)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    opened = {name: Site(name, warm) for name in sites}
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
            work = (train, warm.parts.rules, opened[site].steps(), warm.device)
            for images, labels in batches(opened[site].cases.train, rng, *work):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(warm.device.type, dtype=torch.bfloat16, enabled=warm.amp):
                    logits = network(images)
                loss(logits.float(), targets(labels, logits.shape[1]).float()).mean().backward()
                optimizer.step()
            arrays = {name: t.cpu().numpy() for name, t in network.state_dict().items()}
            mean.take(arrays, len(opened[site].cases.train))
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


def engine_speed(folder: Path, config: Config) -> list[Result]:
    """(a) The local engine beside bare PyTorch: the same steps in the same number of processes."""
    sites = _prepared(folder, config)
    client = partial(make_client_app, str(folder))
    one = statistics.median(bare_loop(str(folder), sites) for _ in range(2))
    one_last = bare_loop(str(folder), sites, ordered=True)
    two = bare_loops(str(folder), [sites[0::2], sites[1::2]])
    ours = {
        w: federated_rounds(
            folder, with_workers(config, w), sites, client, initial_arrays(parts_of(config), None)
        )
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
        folder, with_workers(config, 2, "ray"), sites, client, initial_arrays(parts_of(config), None)
    )
    return [
        ("(b) ray engine, whole / rounds", f"{whole:.2f} s / {sum(rounds):.2f} s", ""),
        ("(b) ray engine, whole run / bare loop, 1 process", f"{whole / one:.2f}", ""),
    ]


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
    bare = bare_loop(str(folder), sites, ordered=True)
    whole, rounds = federated_rounds(folder, big, sites, client, initial_arrays(parts_of(big), None))
    return [
        ("(f) GPU bare loop", f"{steps / bare:.2f} steps/s", ""),
        (
            "(f) GPU federation, whole / rounds",
            f"{steps / whole:.2f} / {steps / sum(rounds):.2f} steps/s",
            "",
        ),
    ]

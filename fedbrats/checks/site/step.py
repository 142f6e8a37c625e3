"""One training step of a study's network on a case of the site, in a process of its own: how long, how much memory."""

from __future__ import annotations

import copy
import math
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding, reason_of
from fedbrats.checks.site.memory import memory_of
from fedbrats.config.schema import Config
from fedbrats.config.site_file import SiteFile
from fedbrats.data.cache import CachedCase, prepare_case
from fedbrats.data.cases import Case
from fedbrats.data.intensity import normaliser
from fedbrats.data.regions import LabelSystem
from fedbrats.data.walking import bounds_of
from fedbrats.devices import cores, pick_device
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.in_round import in_round
from fedbrats.models.build import build_network, channels_last
from fedbrats.privacy.dp_sgd import DpSgd, train_privately
from fedbrats.privacy.mechanism import PrivateStep
from fedbrats.privacy.noise import secret_numbers
from fedbrats.training.batches import Batch, batches
from fedbrats.training.critic import critic_of
from fedbrats.training.loop import train_locally
from fedbrats.training.optimizers import clip_in_steps
from fedbrats.training.vat import adversary_of

TIGHT = 0.8  # share of the memory beyond which a round may not fit


@dataclass(frozen=True)
class Sample:
    """A case of the site as it lies in a cache. bytes: that it takes there; seconds: that it took to prepare."""

    cached: CachedCase
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Step:
    """A training step. seconds: of the last of `steps`; bytes: the most that its process had; gpu_bytes: on the GPU."""

    seconds: float
    steps: int
    bytes: int
    gpu_bytes: int
    loss: float


def prepare_sample(site: SiteFile, case: Case, system: LabelSystem, folder: Path) -> Sample:
    """Preprocess a case into `folder`, as a study would into the cache.

    Raises:
        ValueError: the case cannot be used.
        CacheError: `folder` cannot be written.
    """
    started = time.perf_counter()
    bounds = bounds_of(Path(str(site.data.root)), site.data.max_voxels, site.data.links)
    cached = prepare_case(case, system, folder, bounds)
    size = sum(file.stat().st_size for file in cached.folder.iterdir())
    return Sample(cached, size, time.perf_counter() - started)


def check_step(site: SiteFile, config: Config, sample: Sample) -> Finding:
    """Take a training step as a round would, where it can be killed without harm, and say what it took.

    Args:
        site: for its device and limits.
        config: of the study; its network, patch, batch, loss, optimiser and privacy count.
        sample: a case of the site.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, site, config, sample.cached))
    process.start()
    theirs.close()
    try:
        done: Step | str = ours.recv()
    except EOFError:
        done = ""
    process.join()
    if isinstance(done, Step):
        return _judged(done, site, config)
    if done:
        return Finding("training step", FIX, f"failed: {done}")
    said = (
        f"its process was killed (signal {-(process.exitcode or 0)}), most likely as memory ran out: give this site "
        "more, or ask the study for a smaller train.patch or train.batch."
    )
    return Finding("training step", FIX, said, "", {"signal": -(process.exitcode or 0)})


def _judged(done: Step, site: SiteFile, config: Config) -> Finding:
    device = pick_device(site.device)
    patch = "x".join(map(str, config.train.patch or parts_of(config).patch))
    facts: dict[str, Any] = {"seconds": round(done.seconds, 2), "GB": round(done.bytes / 1e9, 2)}
    facts |= {"device": device.type, "patch": patch, "batch": config.train.batch}
    said = f"{done.seconds:.2f} s on {device.type} for a batch of {config.train.batch} patches {patch}"
    said += f", {done.bytes / 1e9:.1f} GB of memory"
    if device.type == "cuda":
        facts["gpu GB"] = round(done.gpu_bytes / 1e9, 2)
        said += f" and {done.gpu_bytes / 1e9:.1f} GB of the GPU"
    if not math.isfinite(done.loss):
        said += ": its loss is not finite; look at the intensities of the cases."
        return Finding("training step", FIX, said, "", facts)
    try:
        total = memory_of().total
    except (OSError, KeyError, ValueError, IndexError):
        total = done.bytes * 100  # unknown, and it did fit
    if done.bytes > TIGHT * total:
        said += f", which is more than {TIGHT:.0%} of what there is: a round may be killed. Give this site more memory."
        return Finding("training step", WARNING, said, "", facts)
    return Finding("training step", OK, said, "", facts)


def _child(results: Connection, site: SiteFile, config: Config, case: CachedCase) -> None:
    try:
        results.send(take_step(site, config, case))
    except torch.cuda.OutOfMemoryError:
        results.send(
            "the memory of the GPU ran out: end other programs on it, raise limits.memory_fraction, or ask the study "
            "for a smaller train.patch or train.batch."
        )
    except MemoryError:
        results.send(
            "memory ran out: give this site more, or ask the study for a smaller train.patch or train.batch."
        )
    except OSError as error:
        results.send(f"{reason_of(error)}.")
    except Exception as error:  # its text may quote a path
        text = str(error).replace(case.name, "a case").replace(str(case.folder), "")
        results.send(f"{type(error).__name__}: {text[:200]}" if "/" not in text else type(error).__name__)
    finally:
        results.close()


def take_step(site: SiteFile, config: Config, case: CachedCase) -> Step:
    """One step in this process, on a GPU a second one, as the first includes its start; nothing is kept of it."""
    device = pick_device(site.device)
    torch.set_num_threads(site.limits.threads or cores())
    if device.type == "cuda" and site.limits.memory_fraction:
        torch.cuda.set_per_process_memory_fraction(site.limits.memory_fraction)
    parts = parts_of(config)
    network = channels_last(build_network(config.model).to(device))
    optimizer = instantiate(config.train.optimizer)(network.parameters())
    if config.train.clip_norm is not None:
        clip_in_steps(optimizer, config.train.clip_norm)
    amp = _amp(config, device)
    critic = critic_of(config.train.critic, parts.channels, device, amp)
    seconds = loss = 0.0
    steps = 2 if device.type == "cuda" else 1
    for _ in range(steps):
        started = time.perf_counter()
        if isinstance(parts.privacy, DpSgd):
            loss = _private_step(config, parts, network, optimizer, case, device)
        else:
            loss = train_locally(
                network,
                optimizer,
                in_round(parts.loss, 1, config.rounds),
                _batches(config, parts, case, config.train.batch, device),
                adversary=adversary_of(config.train.vat),
                critic=critic,
                deep_supervision=config.train.deep_supervision,
                amp=amp,
            )
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gpu = torch.cuda.max_memory_reserved() if device.type == "cuda" else 0
    return Step(seconds, steps, most, gpu, loss)


def _amp(config: Config, device: torch.device) -> bool:
    return device.type == "cuda" and config.runtime.amp


def _batches(
    config: Config, parts: Parts, case: CachedCase, batch: int, device: torch.device
) -> Iterator[Batch]:
    train = copy.copy(config.train)
    train.batch = batch
    rules, rng = parts.rules, np.random.default_rng(0)
    labels = {case.name: 0} if parts.classifies else None  # a step costs the same whatever the label
    own = normaliser(rules.normalise, [case])
    return batches([case], rng, train, rules, 1, device, own, labels)


def _private_step(
    config: Config,
    parts: Parts,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    case: CachedCase,
    device: torch.device,
) -> float:
    """A private step with as many patients as a study expects in one; all of them are the same case."""
    settings, loss = parts.privacy, in_round(parts.loss, 1, config.rounds)

    def values(outputs: Tensor, labels: Tensor) -> Tensor:
        return deep_supervised(loss, outputs, labels, config.train.deep_supervision)

    patients = math.ceil(settings.expected_patients)
    step = PrivateStep(
        network,
        values,
        clip=settings.clip,
        sigma=1.0,
        expected=settings.expected_patients,
        noise=secret_numbers(),
        engine=settings.engine,
        chunk=settings.chunk,
        amp=_amp(config, device),
    )
    draw = (next(_batches(config, parts, case, settings.patches, device)) for _ in range(patients))
    return train_privately(network, optimizer, step, [draw], None)[0].loss

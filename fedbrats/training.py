"""What a site does in one round: a fixed number of optimiser steps on random patches of its own cases."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Penalty
from fedbrats.config import ConfigError, InputConfig, TrainConfig
from fedbrats.data.augment import augment
from fedbrats.data.cache import CachedCase
from fedbrats.data.intensity import Normaliser
from fedbrats.data.patches import draw_batch
from fedbrats.losses.deep_supervision import deep_supervised

INVERSE_RATE, INVERSE_POWER = (
    4.5,
    0.75,
)  # gamma 0.0001 times the 45 000 iterations of the paper, and its power
Batch = tuple[Tensor, Tensor]


class TrainingError(RuntimeError):
    """Local training that cannot go on; the message names the setting to change."""


def learning_rate_factor(round_: int, rounds: int, schedule: str, warmup: int = 0) -> float:
    """Factor on the learning rate in global round `round_` (1-based) of `rounds`, the same at every site.

    constant: 1. poly: (1 - t)^0.9 as in nnU-Net. cosine: (1 + cos(pi t)) / 2. inverse: (1 + gamma i)^-0.75 of Pawar et
    al. (equation 2) with gamma = 0.0001 and their 45 000 iterations i spread evenly over the rounds, so it ends near
    0.28. plateau: 1, because the server sends that factor with the round (`plateau_factor`). t = (round_ - 1) / rounds,
    so the first round has the full rate and the last one still moves. `warmup` rounds rise linearly before that.
    """
    ramp = min(1.0, round_ / (warmup + 1)) if warmup else 1.0
    t = (round_ - 1) / rounds
    curve = {
        "constant": 1.0,
        "plateau": 1.0,
        "poly": (1 - t) ** 0.9,
        "cosine": (1 + math.cos(math.pi * t)) / 2,
        "inverse": (1 + INVERSE_RATE * t) ** -INVERSE_POWER,
    }
    return ramp * curve[schedule]


def plateau_factor(losses: Sequence[float], factor: float, patience: int, cooldown: int) -> float:
    """Factor on the learning rate after validations that gave `losses`, oldest first ("reduce on plateau").

    The rate is multiplied by `factor` once the loss has not fallen below its minimum (by 0.01 % of it, the default of
    Keras and torch's `ReduceLROnPlateau`) for more than `patience` validations; for `cooldown` validations after that
    nothing is counted. Worked out from the history, so a resumed run gets the same.
    """
    result, best, waiting, resting = 1.0, math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - 1e-4):
            best, waiting = loss, 0
        else:
            waiting += 1
        if resting:
            resting, waiting = resting - 1, 0
        if waiting > patience:
            result, waiting, resting = result * factor, 0, cooldown
    return result


def steps_per_round(site: str, cases: int, train: TrainConfig) -> int:
    """Optimiser steps of `site` with `cases` training cases in one round."""
    return steps_of_site(site, train, cases * train.patches_per_case / train.batch)


def steps_of_site(site: str, train: TrainConfig, epoch: float) -> int:
    """Optimiser steps of `site` in one round, its own work if named, else the common; `epoch`: steps in one epoch."""
    epochs = train.site_epochs.get(site, train.local_epochs)
    if site in train.site_steps:
        return train.site_steps[site]
    if site not in train.site_epochs and train.local_steps is not None:
        return train.local_steps
    assert epochs is not None, "check_config lets exactly one of local_steps and local_epochs through"
    return max(1, math.ceil(epochs * epoch - 1e-9))  # 1.1 * 50 is above 55


def check_site_names(train: TrainConfig, sites: Collection[str]) -> None:
    """Raise ConfigError when partial work is asked of a site that is not among the training `sites`."""
    for key in ("site_steps", "site_epochs"):
        strangers = sorted(getattr(train, key).keys() - set(sites))
        if strangers:
            raise ConfigError(f"train.{key} names {strangers}; the sites that train are {sorted(sites)}")


def batches(
    cases: Sequence[CachedCase],
    rng: np.random.Generator,
    train: TrainConfig,
    rules: InputConfig,
    steps: int,
    device: torch.device,
    normalise: Normaliser | None = None,
) -> Iterator[Batch]:
    """`steps` batches of images float32 [B, 4, *patch] and canonical labels uint8 [B, *patch] on `device`.

    The patch is `train.patch`, else that of the network's `rules`; one of two sides is cut from slices.
    """
    patch, planes = train.patch or rules.patch, rules.planes

    def make() -> Iterator[Batch]:
        for _ in range(steps):
            drawn = draw_batch(
                cases,
                rng,
                patch=patch,
                batch=train.batch,
                tumour_share=train.tumour_share,
                planes=planes,
                normalise=normalise,
            )
            images, labels = torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])
            yield augment(images, labels, rng, train.augment)

    if device.type != "cuda":
        return make()
    return _prefetched(make(), device)


def _prefetched(source: Iterator[Batch], device: torch.device, depth: int = 2) -> Iterator[Batch]:
    """The batches of `source`, made and pinned in a thread while the GPU works; order and content are the same."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def fill() -> None:
        try:
            for images, labels in source:
                put((images.pin_memory(), labels.pin_memory()))
            put(None)
        except BaseException as error:  # handed to the training loop, which raises it
            put(error)

    threading.Thread(target=fill, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0].to(device, non_blocking=True), item[1].to(device, non_blocking=True)
    finally:
        stop.set()


def train_locally(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Iterator[Batch],
    *,
    penalty: Penalty | None = None,
    deep_supervision: Sequence[float] | None = None,
    amp: bool = False,
) -> float:
    """Take one optimiser step per batch of `data`; `penalty` is added to the loss of each.

    Returns:
        Mean training loss over the steps, without the penalty.

    Raises:
        TrainingError: the loss is not finite.
    """
    network.train()
    device = next(network.parameters()).device
    losses = []
    for images, labels in data:
        layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            outputs = network(images.to(memory_format=layout))
        value = deep_supervised(loss, outputs, labels, deep_supervision).mean()
        losses.append(value.detach())
        (value if penalty is None else value + penalty()).backward()
        optimizer.step()
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise TrainingError(f"training loss is {mean}: lower train.optimizer.lr or set train.clip_norm.")
    return mean


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the configured learning rate by `factor`, that of the round."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("base_lr", group["lr"]) * factor


def clip_in_steps(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """Clip the gradient of all parameters of `optimizer` together to `norm` before each of its steps."""

    def clip(*step: Any) -> None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)

    optimizer.register_step_pre_hook(clip)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as named tensors, "parameter index.name", for safetensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.detach().to("cpu").contiguous()
        for index, entries in state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; the hyper-parameters stay those of `optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})

"""The training loop: one optimiser step per batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Penalty
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.training.batches import Batch


class TrainingError(RuntimeError):
    """Local training that cannot go on; the message names the setting to change."""


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

"""The training loop: one optimiser step per batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Penalty
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.training.batches import Batch
from fedbrats.training.vat import Adversary


class TrainingError(RuntimeError):
    """Local training that cannot go on; the message names the setting to change."""


def train_locally(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Iterator[Batch],
    *,
    penalty: Penalty | None = None,
    adversary: Adversary | None = None,
    deep_supervision: Sequence[float] | None = None,
    amp: bool = False,
) -> float:
    """Take one optimiser step per batch of `data`; `penalty` and the term of `adversary` are added to the loss of each.

    Returns:
        Mean training loss over the steps, without what was added.

    Raises:
        TrainingError: the loss or the term is not finite.
    """
    network.train()
    device = next(network.parameters()).device
    losses, terms = [], []
    for images, labels in data:
        layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
        images = images.to(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            outputs = network(images)
        value = deep_supervised(loss, outputs, labels, deep_supervision).mean()
        losses.append(value.detach())
        (value if penalty is None else value + penalty()).backward()
        if adversary is not None:
            # By itself, so that the activations of one pass are kept at a time; and last, as a penalty (MOON's) may
            # look at the pass before it.
            term = adversary(network, images, labels)
            term.backward()
            terms.append(term.detach())
        optimizer.step()
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise TrainingError(f"training loss is {mean}: lower train.optimizer.lr or set train.clip_norm.")
    if terms and not math.isfinite(float(torch.stack(terms).sum())):
        raise TrainingError(
            "the term of train.vat is not finite: lower train.vat.epsilon or train.vat.weight."
        )
    return mean

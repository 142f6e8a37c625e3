"""The training loop: one optimiser step per batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Penalty
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.training.batches import Batch
from fedbrats.training.critic import Critic
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
    critic: Critic | None = None,
    deep_supervision: Sequence[float] | None = None,
    amp: bool = False,
) -> float:
    """Take one optimiser step per batch of `data`, and one of `critic` after it.

    `penalty` and the terms of `adversary` and `critic` are added to the loss of each.

    Returns:
        Mean training loss over the steps, without what was added.

    Raises:
        TrainingError: the loss or a term is not finite.
    """
    network.train()
    device = next(network.parameters()).device
    losses, terms, said = [], [], []
    for images, labels in data:
        layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
        images = images.to(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            outputs = network(images)
        value = deep_supervised(loss, outputs, labels, deep_supervision).mean()
        losses.append(value.detach())
        total = value if penalty is None else value + penalty()
        (total if critic is None else total + critic.term(outputs)).backward()
        if adversary is not None:
            # By itself, so that the activations of one pass are kept at a time; and last, as a penalty (MOON's) may
            # look at the pass before it.
            term = adversary(network, images, labels)
            term.backward()
            terms.append(term.detach())
        optimizer.step()
        if critic is not None:
            said.append(critic.step(outputs, labels))
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise TrainingError(f"training loss is {mean}: lower train.optimizer.lr or set train.clip_norm.")
    _refuse_infinite(terms, "the term of train.vat", "train.vat.epsilon or train.vat.weight")
    _refuse_infinite(said, "the loss of train.critic", "train.critic.lr or train.critic.weight")
    return mean


def _refuse_infinite(values: Sequence[Tensor], what: str, keys: str) -> None:
    if values and not math.isfinite(float(torch.stack(list(values)).sum())):
        raise TrainingError(f"{what} is not finite: lower {keys}.")

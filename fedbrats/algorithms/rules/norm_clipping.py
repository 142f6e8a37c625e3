"""Norm clipping (Sun et al., "Can you really backdoor federated learning?", arXiv 1911.07963, Section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group, Reply, check_positive
from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.algorithms.rules.rule import Rule


@dataclass(frozen=True, kw_only=True)
class NormClipping(Rule):
    """The change of a site is shortened to the norm `max_norm` before the mean, which is weighted by cases as FedAvg's:

        x <- x + sum_k p_k (y_k - x) / max(1, ||y_k - x|| / max_norm)

    The norm is that of all trained arrays together. Running statistics are averaged as they are.
    """

    max_norm: float = 1.0  # M

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_positive(self, "max_norm")

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The mean of what is left of the changes."""
        mean, names = WeightedMean(), sorted(group.trainable)
        for reply in replies:
            changes = {name: torch.tensor(reply.arrays[name]) - array for name, array in old.items()}
            squares = [changes[name].double().square().sum() for name in names]
            shorter = max(1.0, float(torch.stack(squares).sum().sqrt()) / self.max_norm)
            for name in names:
                changes[name] /= shorter
            mean.take({name: change.numpy() for name, change in changes.items()}, float(reply.cases))
        return {name: old[name] + change for name, change in mean.arrays.items()}

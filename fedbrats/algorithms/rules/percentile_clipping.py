"""Aggregation clipped to a percentile, which the FeTS challenge gives to its participants as an example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group, Reply
from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.algorithms.rules.rule import Rule


@dataclass(frozen=True, kw_only=True)
class PercentileClipping(Rule):
    """The largest changes of every array are cut to what the rest of them reaches, then averaged by cases:

        c = percentile of |x_k - x| over all sites and numbers of an array
        x <- x + sum_k n_k clip(x_k - x, -c, c) / sum_k n_k

    As in the challenge this is done for running statistics, too. A large site has no more say in c than a small one.
    """

    percentile: float = 80.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        if not 0 < self.percentile <= 100:
            raise ValueError(
                f"strategy.percentile={self.percentile}: must lie in (0, 100]; 100 clips nothing."
            )

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The model and the mean of what is left of the changes."""
        mean, limits = WeightedMean(), dict[str, float]()
        for name, array in old.items():
            sizes = np.empty(
                (len(replies), *array.shape), array.numpy().dtype
            )  # as much as this array's replies
            for size, reply in zip(sizes, replies, strict=True):
                np.subtract(reply.arrays[name], array.numpy(), out=size)
            np.abs(sizes, out=sizes)
            limits[name] = float(np.percentile(sizes, self.percentile, overwrite_input=True))
        for reply in replies:
            changes = {name: torch.tensor(reply.arrays[name]) - array for name, array in old.items()}
            clipped = {
                name: change.clamp(-limits[name], limits[name]).numpy() for name, change in changes.items()
            }
            mean.take(clipped, float(reply.cases))
        return {name: old[name] + change for name, change in mean.arrays.items()}

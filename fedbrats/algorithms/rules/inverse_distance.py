"""Inverse distance aggregation (Yeganeh et al., DCL 2020, arXiv 2008.07665)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group, Reply
from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.algorithms.rules.rule import Rule, equal_mean

CLOSE = 1e-6  # a distance below this share of the largest counts as this share, or one site would be all of the model


@dataclass(frozen=True, kw_only=True)
class InverseDistance(Rule):
    """Sites that lie far from the mean m of all of them weigh less:

        x <- sum_k p_k x_k,   p_k proportional to 1 / ||x_k - m||,   m = 1/n sum_k x_k

    The distance is Euclidean over all trained arrays together. Cases have no part in it. Running statistics are
    averaged with the same weights.
    """

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The mean by inverse distances; of equal replies, that reply."""
        centre, names = equal_mean(replies), sorted(group.trainable)
        squares = [
            torch.stack(
                [(torch.tensor(r.arrays[n]).double() - centre[n].double()).square().sum() for n in names]
            ).sum()
            for r in replies
        ]
        distances = torch.stack(squares).sqrt()
        largest, mean = float(distances.max()), WeightedMean()
        for reply, distance in zip(replies, distances.tolist(), strict=True):
            mean.take(reply.arrays, 1.0 if largest == 0 else largest / max(distance, CLOSE * largest))
        return mean.arrays

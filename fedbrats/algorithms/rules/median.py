"""Coordinate-wise median (Yin et al., ICML 2018, Definition 1 and Algorithm 1, option I)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedbrats.algorithms.base import Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class CoordinateMedian(FedAvg):
    """Every number of the model becomes the median over the sites, so fewer than half of them cannot move it at will.

    Sites count alike, whatever their cases. The paper takes the median of gradients; of models after local training it
    is the same rule applied to x + (y - x). The server holds the replies of all sites at once.
    """

    any_mean: ClassVar[bool] = False

    def collect(self, memory: Memory) -> AllReplies:
        """All replies at once."""
        return AllReplies()


class AllReplies:
    """The replies of a round, kept until they are all there; memory grows with the number of sites."""

    def __init__(self) -> None:
        """Start with no reply."""
        self.found: list[Reply] = []

    @property
    def replies(self) -> int:
        """Replies so far."""
        return len(self.found)

    @property
    def arrays(self) -> dict[str, Tensor]:
        """The median of each number; of an even number of sites the mean of the two in the middle."""
        return {name: self._median(name) for name in self.found[0].arrays}

    def add(self, reply: Reply) -> None:
        """Add one checked reply."""
        self.found.append(reply)

    def _median(self, name: str) -> Tensor:
        # Not torch.quantile, which takes no more than 2^24 numbers.
        ordered = torch.stack([torch.tensor(reply.arrays[name]) for reply in self.found]).sort(dim=0).values
        return torch.lerp(ordered[(self.replies - 1) // 2], ordered[self.replies // 2], 0.5)

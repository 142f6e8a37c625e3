"""Bulyan (El Mhamdi et al., "The hidden vulnerability of distributed learning in Byzantium", ICML 2018, Section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group, Reply
from fedbrats.algorithms.rules.krum import krum_sums, squared_distances
from fedbrats.algorithms.rules.rule import AgainstLiars, in_order, median


@dataclass(frozen=True, kw_only=True)
class Bulyan(AgainstLiars):
    """Krum chooses n - 2 f sites one by one; of them every number is the mean of the n - 4 f next to their median.

    Sites count alike. Krum is asked again among those that are left, by the distances of trained arrays; where fewer
    than one neighbour would be left to measure by, it is one.
    """

    @property
    def least_sites(self) -> int:
        """4 f + 3."""
        return 4 * self.liars + 3

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The mean of the values next to the median, of the sites that were chosen."""
        distances = squared_distances(replies, sorted(group.trainable))
        chosen = [replies[i] for i in self.choose(distances)]
        count = len(replies) - 4 * self.liars
        become = partial(_next_to_median, count=count)
        return {name: in_order(chosen, name, become) for name in replies[0].arrays}

    def choose(self, distances: Tensor) -> list[int]:
        """The places of the n - 2 f chosen replies, in order."""
        left, chosen = list(range(len(distances))), list[int]()
        for _ in range(len(distances) - 2 * self.liars):
            sums = krum_sums(distances[left][:, left], self.liars)
            chosen.append(left.pop(int(sums.argmin())))
        return sorted(chosen)


def _next_to_median(ordered: Tensor, count: int) -> Tensor:
    """Of values in order, [n, numbers], the mean of the `count` that are the closest to their median."""
    distances = (ordered - median(ordered)).abs()
    closest = distances.argsort(dim=0, stable=True)[:count]
    return torch.gather(ordered, 0, closest).mean(dim=0)

"""FedCostWAvg (Mächler et al., BrainLes 2021, arXiv 2111.08649), winner of the first task of FeTS 2021."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean

COSTS = "costs"  # of each site, the last that it has told


@dataclass(frozen=True, kw_only=True)
class FedCostWAvg(FedAvg):
    """Sites weigh by their cases s_k and by how far their cost c has fallen since the round before:

        x <- sum_k (alpha s_k / S + (1 - alpha) r_k / R) x_k     with r_k = c_before / c_now, S = sum s_k, R = sum r_k

    The cost is the site's mean training loss of the round. A site that tells its cost for the first time, as all do in
    the first round, has r_k = 1; one that missed a round is compared with the last cost that it told.
    """

    needs_losses: ClassVar[bool] = True
    any_mean: ClassVar[bool] = False

    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"strategy.alpha={self.alpha}: must lie in [0, 1], the share of the cases.")

    def collect(self, memory: Memory) -> CasesAndCosts:
        """Both means."""
        return CasesAndCosts(self.alpha, memory.facts.get(COSTS, {}))

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The weighted mean; the costs are remembered."""
        assert isinstance(found, CasesAndCosts)
        return found.arrays, Memory(facts={COSTS: {**memory.facts.get(COSTS, {}), **found.costs}})


class CasesAndCosts:
    """Two running means, one weighted by cases, one by the fall of the cost, which are mixed in the end."""

    def __init__(self, alpha: float, before: Mapping[str, float]) -> None:
        """`alpha`: share of the mean by cases; `before`: last known cost by site."""
        self.costs: dict[str, float] = {}
        self._alpha, self._before = alpha, before
        self._by_cases, self._by_fall = WeightedMean(), WeightedMean()

    @property
    def replies(self) -> int:
        """Replies so far."""
        return self._by_cases.replies

    @property
    def arrays(self) -> dict[str, Tensor]:
        """alpha times the mean by cases, and the rest by the fall of the cost."""
        by_fall = self._by_fall.arrays
        return {n: torch.lerp(by_fall[n], mean, self._alpha) for n, mean in self._by_cases.arrays.items()}

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: a cost that is not positive has no ratio.
        """
        cost = reply.loss
        if cost is None or not 0 < cost < math.inf:
            raise ValueError(f"training loss is {cost}, but strategy=fedcostwavg needs a positive one")
        self.costs[reply.site] = cost
        self._by_cases.take(reply.arrays, float(reply.cases))
        self._by_fall.take(reply.arrays, self._before.get(reply.site, cost) / cost)

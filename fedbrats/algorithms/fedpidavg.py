"""FedPIDAvg (Mächler et al., BrainLes 2022, arXiv 2304.12117), winner of the first task of FeTS 2022."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, Reply, check_shares
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean

COSTS = "costs"  # of each site, the last that it has told, oldest first
LAST = 6  # costs in the integral: of this round and of the five before


@dataclass(frozen=True, kw_only=True)
class FedPIDAvg(FedAvg):
    """Sites weigh by their cases s_k, by the fall of their cost and by the sum of their last costs:

        x <- sum_k (alpha s_k / S + beta d_k / D + gamma m_k / M) x_k
        d_k = c_before - c_now,   m_k = c_now + ... + c_(now - 5),   S, D, M their sums over the sites

    The cost is the site's mean training loss of the round. The print does not say what a cost that has risen weighs;
    here it weighs nothing, and where no cost has fallen, as in the first round, beta goes to the cases. A site that
    missed a round is compared with the last cost that it told. The paper also lets large institutions train on a part
    of their cases each round, which is `train.site_steps` here and no part of this rule.
    """

    needs_losses: ClassVar[bool] = True
    any_mean: ClassVar[bool] = False

    alpha: float = 0.45
    beta: float = 0.45
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_shares(self, "alpha", "beta", "gamma")

    def collect(self, memory: Memory) -> CasesFallsAndSums:
        """The three means."""
        return CasesFallsAndSums((self.alpha, self.beta, self.gamma), memory.facts.get(COSTS, {}))

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The weighted mean; the costs are remembered."""
        assert isinstance(found, CasesFallsAndSums)
        return found.arrays, Memory(facts={COSTS: {**memory.facts.get(COSTS, {}), **found.costs}})


class CasesFallsAndSums:
    """Three running means, by cases, by the fall of the cost and by the sum of the last costs, mixed in the end."""

    def __init__(self, shares: tuple[float, float, float], before: Mapping[str, Sequence[float]]) -> None:
        """`shares`: of the three means; `before`: last known costs by site, oldest first."""
        self.costs: dict[str, list[float]] = {}
        self._shares, self._before = shares, before
        self._by_cases, self._by_fall, self._by_sum = WeightedMean(), WeightedMean(), WeightedMean()

    @property
    def replies(self) -> int:
        """Replies so far."""
        return self._by_cases.replies

    @property
    def arrays(self) -> dict[str, Tensor]:
        """alpha, beta and gamma times the three means."""
        by_cases, by_sum = self._by_cases.arrays, self._by_sum.arrays
        by_fall = self._by_fall.arrays if self._by_fall.replies else by_cases
        alpha, beta, gamma = self._shares
        return {n: alpha * mean + beta * by_fall[n] + gamma * by_sum[n] for n, mean in by_cases.items()}

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: a cost that is not positive weighs nothing.
        """
        cost = reply.loss
        if cost is None or not 0 < cost < math.inf:
            raise ValueError(f"training loss is {cost}, but strategy=fedpidavg needs a positive one")
        costs = [*self._before.get(reply.site, ()), cost][-LAST:]
        self.costs[reply.site] = costs
        self._by_cases.take(reply.arrays, float(reply.cases))
        self._by_sum.take(reply.arrays, sum(costs))
        if len(costs) > 1 and costs[-1] < costs[-2]:
            self._by_fall.take(reply.arrays, costs[-2] - costs[-1])

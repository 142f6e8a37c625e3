"""Dynamic weight averaging (after Shen et al., "Multi-task federated learning for heterogeneous pancreas segmentation",
2021, and the weights of Liu et al., "End-to-end multi-task learning with attention", CVPR 2019, Equation 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, Reply, check_positive
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean

LOSSES = "losses"  # of each site, the last that it has told


@dataclass(frozen=True, kw_only=True)
class DynamicWeightAveraging(FedAvg):
    """Sites whose loss has fallen less weigh more:

        x <- sum_k p_k x_k,   p_k proportional to exp(r_k / T),   r_k = loss_now / loss_before

    The weights are those that Liu et al. give to tasks. The review from which this comes prints for federations only
    that weights follow "the variation of loss values from the previous rounds"; neither sign nor temperature. The loss
    is the mean training loss of the round, cases have no part in it, and a site that tells its loss for the first time,
    as all do in the first round, has r_k = 1.
    """

    needs_losses: ClassVar[bool] = True
    any_mean: ClassVar[bool] = False

    temperature: float = 2.0  # T

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_positive(self, "temperature")

    def collect(self, memory: Memory) -> ByRatio:
        """The weighted mean."""
        return ByRatio(self.temperature, memory.facts.get(LOSSES, {}))

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The mean; the losses are remembered."""
        assert isinstance(found, ByRatio)
        return found.arrays, Memory(facts={LOSSES: {**memory.facts.get(LOSSES, {}), **found.losses}})


class ByRatio(WeightedMean):
    """The mean by exp(r_k / T)."""

    def __init__(self, temperature: float, before: Mapping[str, float]) -> None:
        """`before`: last known loss by site."""
        super().__init__()
        self.losses: dict[str, float] = {}
        self._temperature, self._before = temperature, before

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: a loss that is not positive has no ratio, or one so large that no weight can be computed.
        """
        loss = reply.loss
        if loss is None or not 0 < loss < math.inf:
            raise ValueError(f"training loss is {loss}, but strategy=dwa needs a positive one")
        exponent = loss / self._before.get(reply.site, loss) / self._temperature
        if exponent > 700:  # exp of it is no float any more
            raise ValueError(
                f"training loss {loss:g} is {exponent * self._temperature:.3g} times that of before"
            )
        self.losses[reply.site] = loss
        self.take(reply.arrays, math.exp(exponent))

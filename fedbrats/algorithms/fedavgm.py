"""FedAvgM (Hsu et al., "Measuring the effects of non-identical data distribution", arXiv 1909.06335, Section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, check_below_one, check_positive
from fedbrats.algorithms.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedAvgM(FedAvg):
    """FedAvg with momentum at the server, D being the mean change of the sites, weighted by cases:

        v <- beta v + D          (v starts at 0)
        x <- x + lr v

    The paper has lr = 1. Only trained arrays are stepped; running statistics are averaged.
    """

    beta: float = 0.9
    lr: float = 1.0  # of the server

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_below_one(self, "beta")
        check_positive(self, "lr")

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The step with momentum for what is trained, the mean for the rest."""
        new, moments = dict(found.arrays), dict[str, Tensor]()
        for name in [name for name in old if name in group.trainable]:
            change = new[name] - old[name]
            before = memory.arrays.get(name)
            moments[name] = change if before is None else self.beta * before + change
            new[name] = old[name] + self.lr * moments[name]
        return new, Memory(moments)

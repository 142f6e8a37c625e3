"""Server optimisers that adapt their step to every number (Reddi et al., "Adaptive federated optimization", 2021)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory, check_below_one, check_positive
from fedbrats.algorithms.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class Adaptive(FedAvg, ABC):
    """The server takes the mean change of the sites, D = mean - x, for a gradient (Algorithm 2):

        m <- beta_1 m + (1 - beta_1) D
        v <- what the optimiser makes of v and D^2
        x <- x + lr m / (sqrt(v) + tau)

    As printed: no correction of the bias, m starts at 0 and v at tau^2. The print gives every site the same weight; the
    mean here is FedAvg's, weighted by cases. Only trained arrays are stepped; running statistics are averaged, as a
    step on a variance could make it negative. A large tau (adaptivity) turns it into FedAvg with momentum; the paper
    searches lr and tau over powers of ten and finds tau = 0.001 good nearly everywhere.
    """

    lr: float = 0.01  # eta, of the server
    beta_1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_positive(self, "lr", "tau")
        check_below_one(self, "beta_1")

    @abstractmethod
    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The new v of one array, from the old one and D^2."""

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The optimiser's step for what is trained, the mean for the rest."""
        new, moments = dict(found.arrays), dict[str, Tensor]()
        for name in [name for name in old if name in group.trainable]:
            change = new[name] - old[name]
            m = memory.arrays.get(f"m/{name}", torch.zeros_like(change))
            v = memory.arrays.get(f"v/{name}", torch.full_like(change, self.tau**2))
            m = self.beta_1 * m + (1 - self.beta_1) * change
            v = self.second(v, change.square())
            moments |= {f"m/{name}": m, f"v/{name}": v}
            new[name] = old[name] + self.lr * m / (v.sqrt() + self.tau)
        return new, Memory(moments)

"""FedAdam (Reddi et al., "Adaptive federated optimization", ICLR 2021, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedbrats.algorithms.adaptive import Adaptive
from fedbrats.algorithms.base import check_below_one


@dataclass(frozen=True, kw_only=True)
class FedAdam(Adaptive):
    """v <- beta_2 v + (1 - beta_2) D^2, D being the mean change of the sites."""

    beta_2: float = 0.99

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_below_one(self, "beta_2")

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """A running mean of the squares."""
        return self.beta_2 * v + (1 - self.beta_2) * square

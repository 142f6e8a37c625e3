"""FedAdagrad (Reddi et al., "Adaptive federated optimization", ICLR 2021, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedbrats.algorithms.adaptive import Adaptive


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(Adaptive):
    """v <- v + D^2, D being the mean change of the sites; steps become smaller from round to round.

    The paper's experiments have beta_1 = 0 here, which is the default.
    """

    beta_1: float = 0.0

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The sum of the squares."""
        return v + square

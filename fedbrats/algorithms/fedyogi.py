"""FedYogi (Reddi et al., "Adaptive federated optimization", ICLR 2021, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedbrats.algorithms.fedadam import FedAdam


@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAdam):
    """FedAdam with v <- v - (1 - beta_2) D^2 sign(v - D^2), D being the mean change: v moves by D^2 and not by v."""

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """Towards the squares, at their own pace."""
        return v - (1 - self.beta_2) * square * (v - square).sign()

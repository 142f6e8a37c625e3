"""FedProx (Li et al., MLSys 2020, Equation 2 and Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Beside, Penalty
from fedbrats.algorithms.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """FedAvg whose sites minimise h_k(w; w_t) = F_k(w) + mu/2 ||w - w_t||^2 with partial local work.

    The norm is squared and w_t is a frozen copy that serves every batch of the round. mu = 0 adds no term at all,
    so it is FedAvg bit for bit. Partial work (`train.site_steps`, `train.site_epochs`) is the paper's gamma-inexact
    solution.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        if not self.mu >= 0:
            raise ValueError(f"strategy.mu={self.mu}: must be >= 0 (0 is FedAvg).")

    def begin(self, network: nn.Module, site: Beside) -> Penalty | None:
        """The proximal term."""
        return proximal(network, self.mu)


def proximal(network: nn.Module, mu: float) -> Penalty | None:
    """mu/2 ||w - w_t||^2 over the trainable parameters, w_t being their values at this call; None for mu = 0."""
    if mu == 0:
        return None
    weights = [p for p in network.parameters() if p.requires_grad]
    anchors = [p.detach().clone() for p in weights]

    def term() -> Tensor:
        squares = [torch.sum((p - anchor) ** 2) for p, anchor in zip(weights, anchors, strict=True)]
        return 0.5 * mu * torch.stack(squares).sum()

    return term

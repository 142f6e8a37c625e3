"""FedProx (Li et al., MLSys 2020, Equation 2 and Algorithm 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import (
    Arrays,
    Beside,
    Collector,
    Group,
    Memory,
    Penalty,
    Reply,
    check_positive,
)
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean

MU, LOSS, FALLEN = (
    "mu",
    "loss",
    "fallen",
)  # what the server remembers: mu, the last loss, rounds in which it has fallen


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


@dataclass(frozen=True, kw_only=True)
class AdaptiveFedProx(FedProx):
    """FedProx whose mu follows the training loss (the paper's Appendix C.3.3): `step` more whenever it has risen since
    the round before, `step` less, and never below 0, once it has fallen for `patience` rounds in a row.

    `mu` is where it begins. The loss is the mean of the sites', weighted by their cases.
    """

    needs_losses: ClassVar[bool] = True
    any_mean: ClassVar[bool] = False  # it must see the losses with the models
    numbers: ClassVar[tuple[str, ...]] = (MU,)

    step_size: float = 0.1
    patience: int = 5

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_positive(self, "step_size")
        if self.patience < 1:
            raise ValueError(f"strategy.patience={self.patience}: must be at least 1 (rounds).")

    def said(self, memory: Memory) -> dict[str, float]:
        """mu of the round."""
        return {MU: memory.facts.get(MU, self.mu)}

    def collect(self, memory: Memory) -> MeanWithLoss:
        """The mean of the models, and of the losses."""
        return MeanWithLoss()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The mean, and mu of the next round."""
        assert isinstance(found, MeanWithLoss)
        mu, before, fallen = (
            memory.facts.get(MU, self.mu),
            memory.facts.get(LOSS),
            memory.facts.get(FALLEN, 0),
        )
        if before is not None:
            fallen = fallen + 1 if found.loss < before else 0
            if found.loss > before:
                mu += self.step_size
            elif fallen == self.patience:
                mu, fallen = max(0.0, mu - self.step_size), 0
        return found.arrays, Memory(facts={MU: mu, LOSS: found.loss, FALLEN: fallen})

    def begin(self, network: nn.Module, site: Beside) -> Penalty | None:
        """The proximal term with mu of the round."""
        return proximal(network, max(0.0, site.numbers[MU]))


class MeanWithLoss(WeightedMean):
    """The mean of the models and of the training losses, weighted by cases."""

    loss = 0.0

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: it tells no loss.
        """
        if reply.loss is None or not math.isfinite(reply.loss):
            raise ValueError(f"training loss is {reply.loss}, but strategy=fedprox_adaptive follows it")
        super().add(reply)
        self.loss += (reply.loss - self.loss) * reply.cases / self.weight


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

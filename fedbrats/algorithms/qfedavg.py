"""q-FedAvg (Li et al., "Fair resource allocation in federated learning", ICLR 2020, Algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Company, Group, Memory, Reply, check_positive
from fedbrats.algorithms.rules.rule import AllReplies, Rule, equal_mean


@dataclass(frozen=True, kw_only=True)
class QFedAvg(Rule):
    """Sites with a larger loss F_k weigh more, the more so the larger q is; q = 0 is the mean with equal weights:

        D_k = L (x - y_k),   h_k = q F_k^(q - 1) ||D_k||^2 + L F_k^q
        x <- x - sum_k F_k^q D_k / sum_k h_k

    with L = 1 / `site_lr`, the learning rate of the sites. Printed is the loss of x at the site; here it is the mean
    training loss of the round, which begins at x. The norm is that of all trained arrays together; running statistics
    are averaged with equal weights. The server holds the replies of all sites at once.
    """

    needs_losses: ClassVar[bool] = True

    q: float = 1.0
    site_lr: float = 1e-3  # 1 / L

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        if not 0 <= self.q < math.inf:
            raise ValueError(f"strategy.q={self.q}: must be >= 0; 0 weighs all sites alike.")
        check_positive(self, "site_lr")

    def refuses(self, company: Company) -> str | None:
        """1 / learning rate stands for L only where steps are those of gradient descent."""
        optimizer = company.optimizer
        adaptive = optimizer is not None and not company.plain_descent
        if self.q and optimizer and adaptive and self.site_lr == optimizer.param_groups[0]["lr"]:
            return (
                "takes 1 / train.optimizer.lr for L, which is so for gradient descent without momentum only, else the "
                "model hardly moves; set train/optimizer=sgd_plain, or strategy.site_lr (1 / L) by hand"
            )
        return super().refuses(company)

    def collect(self, memory: Memory) -> WithLosses:
        """All replies at once."""
        return WithLosses()

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """x less the weighted changes."""
        total, steps = 0.0, dict[str, Tensor]()
        for reply in replies:
            loss = float(reply.loss)  # type: ignore[arg-type]  # `WithLosses` has seen it
            square = 0.0
            for name in sorted(group.trainable):
                change = (old[name] - torch.tensor(reply.arrays[name])) / self.site_lr
                square += float(change.double().square().sum())
                steps[name] = steps.get(name, 0.0) + loss**self.q * change
            total += self.q * loss ** (self.q - 1) * square + loss**self.q / self.site_lr
        return equal_mean(replies) | {name: old[name] - step / total for name, step in steps.items()}


class WithLosses(AllReplies):
    """The replies of a round, each with its training loss."""

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: its training loss has no power.
        """
        if reply.loss is None or not 0 < reply.loss < math.inf:
            raise ValueError(f"training loss is {reply.loss}, but strategy=qfedavg needs a positive one")
        super().add(reply)

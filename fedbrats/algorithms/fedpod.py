"""FedPOD (Kim, Yie and Lee, arXiv 2512.20610), winner of the first task of FeTS 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbrats.algorithms.base import Memory, Reply, check_shares
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean

SHARES = ("alpha", "beta", "gamma")


@dataclass(frozen=True, kw_only=True)
class FedPOD(FedAvg):
    """FedPIDAvg without a memory: everything is of the round itself, so sites may come and go:

        x <- sum_k (alpha s_k / S + beta m_k / M + gamma d_k / D) x_k
        m_k = (before_k + after_k) / 2,   d_k = max(0, before_k - after_k),   S, M, D sums over the sites

    where before_k and after_k are the loss of the site's validation cases with the model that it received and with what
    it has made of it; s_k are its training cases. The defaults are those of the authors' code. Where no loss has
    fallen, gamma goes to the cases (their code then takes alpha = 0.8 and beta = 0.2), and so does beta where nobody
    has a validation case; a site without any weighs by its training cases only. What the paper calls a round-wise task,
    that a large institution trains on a part of its cases, is `train.site_steps` here.
    """

    needs_progress: ClassVar[bool] = True
    any_mean: ClassVar[bool] = False

    alpha: float = 0.2
    beta: float = 0.1
    gamma: float = 0.7

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_shares(self, *SHARES)

    def collect(self, memory: Memory) -> CasesLevelsAndFalls:
        """The three means."""
        return CasesLevelsAndFalls(self.alpha, self.beta, self.gamma)


class CasesLevelsAndFalls:
    """Three running means, by cases, by the level of the loss and by its fall in the round, mixed in the end."""

    def __init__(self, alpha: float, beta: float, gamma: float) -> None:
        """Shares of the three means."""
        self._shares = alpha, beta, gamma
        self._by_cases, self._by_level, self._by_fall = WeightedMean(), WeightedMean(), WeightedMean()

    @property
    def replies(self) -> int:
        """Replies so far."""
        return self._by_cases.replies

    @property
    def arrays(self) -> dict[str, Tensor]:
        """alpha, beta and gamma times the three means."""
        by_cases = self._by_cases.arrays
        by_level, by_fall = (
            mean.arrays if mean.replies else by_cases for mean in (self._by_level, self._by_fall)
        )
        alpha, beta, gamma = self._shares
        return {n: alpha * mean + beta * by_level[n] + gamma * by_fall[n] for n, mean in by_cases.items()}

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: a loss below zero weighs nothing.
        """
        if reply.progress is not None and min(reply.progress) < 0:
            raise ValueError(
                f"validation losses are {reply.progress}, but strategy=fedpod needs none below zero"
            )
        self._by_cases.take(reply.arrays, float(reply.cases))
        before, after = reply.progress or (0.0, 0.0)
        if before + after > 0:
            self._by_level.take(reply.arrays, (before + after) / 2)
        if before > after:
            self._by_fall.take(reply.arrays, before - after)

"""FedNova (Wang et al., "Tackling the objective inconsistency problem", NeurIPS 2020, Equations 6 to 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Company, Group, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean


@dataclass(frozen=True, kw_only=True)
class FedNova(FedAvg):
    """Sites that take more steps pull no harder: each change counts per step, then the mean goes as many steps.

        x <- x + T sum_k p_k (y_k - x) / t_k      with p_k = n_k / n, t_k steps of site k, T = sum_k p_k t_k

    With equal numbers of steps it is FedAvg. This is the form for plain gradient descent, whose steps all count alike
    (a = 1, ..., 1); running statistics are averaged as in FedAvg.
    """

    any_mean: ClassVar[bool] = False

    def refuses(self, company: Company) -> str | None:
        """Momentum and adaptive optimisers give steps of unequal weight."""
        if not company.plain_descent:
            return (
                "counts every step of a site alike, which holds for gradient descent without momentum only; set "
                "train/optimizer=sgd_plain"
            )
        return super().refuses(company)

    def collect(self, memory: Memory) -> PerStep:
        """The mean, and the one in which every site counts n_k / t_k."""
        return PerStep()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The normalised step for what is trained, the mean for the rest."""
        assert isinstance(found, PerStep)
        new = dict(found.arrays)
        for name in [name for name in old if name in group.trainable]:
            new[name] = old[name] + found.scale * (found.per_step[name] - old[name])
        return new, memory


class PerStep(WeightedMean):
    """The mean weighted by cases n_k and, beside it, the one in which every site counts n_k / t_k.

    sum_k p_k (y_k - x) / t_k is w / n (M - x), with w = sum_k n_k / t_k and M the second mean, so that x is not needed
    while the replies come.
    """

    def __init__(self) -> None:
        """Start with no reply."""
        super().__init__()
        self._per_step, self._steps = WeightedMean(), 0.0

    @property
    def per_step(self) -> dict[str, Tensor]:
        """M."""
        return self._per_step.arrays

    @property
    def scale(self) -> float:
        """T w / n, of the change of M."""
        return self._steps / self.weight * self._per_step.weight / self.weight

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: a site that took no step has no change per step.
        """
        if reply.steps < 1:
            raise ValueError(f"{reply.steps} steps, but strategy=fednova counts changes per step")
        super().add(reply)
        self._per_step.take(reply.arrays, reply.cases / reply.steps)
        self._steps += float(reply.cases) * reply.steps

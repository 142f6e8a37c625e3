"""FedNova (Wang et al., "Tackling the objective inconsistency problem", NeurIPS 2020, Equations 6 to 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
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
        settings = company.optimizer.param_groups[0] if company.optimizer else {}
        if not isinstance(company.optimizer, torch.optim.SGD) or settings["momentum"]:
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


class PerStep:
    """Two running means of the sites' arrays, one weighted by cases n_k and one by n_k / t_k.

    sum_k p_k (y_k - x) / t_k is w / n (M - x), with w = sum_k n_k / t_k and M the second mean, so that x is not needed
    while the replies come.
    """

    def __init__(self) -> None:
        """Start with no reply."""
        self._by_cases, self._per_step = WeightedMean(), WeightedMean()
        self._steps = 0.0

    @property
    def replies(self) -> int:
        """Replies so far."""
        return self._by_cases.replies

    @property
    def arrays(self) -> dict[str, Tensor]:
        """The mean weighted by cases."""
        return self._by_cases.arrays

    @property
    def per_step(self) -> dict[str, Tensor]:
        """The mean in which every site counts n_k / t_k."""
        return self._per_step.arrays

    @property
    def scale(self) -> float:
        """T w / n, of the change of that mean."""
        cases = self._by_cases.weight
        return self._steps / cases * self._per_step.weight / cases

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: a site that took no step has no change per step.
        """
        if reply.steps < 1:
            raise ValueError(f"{reply.steps} steps, but strategy=fednova counts changes per step")
        self._by_cases.take(reply.arrays, float(reply.cases))
        self._per_step.take(reply.arrays, reply.cases / reply.steps)
        self._steps += float(reply.cases) * reply.steps

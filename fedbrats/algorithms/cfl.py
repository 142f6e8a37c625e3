"""Clustered federated learning, groups found by how sites' changes point (Sattler, Müller and Samek, IEEE TNNLS 2021,
Algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Company, Group, Memory, Reply, check_positive
from fedbrats.algorithms.clustered import GROUPS, Clustered, members_of
from fedbrats.algorithms.fedavg import FedAvg

ROUNDS, FIRST = "rounds", "1"  # rounds so far; name of the group of all


@dataclass(frozen=True, kw_only=True)
class CFL(Clustered):
    """All sites begin as one group; a group whose mean change is small while single changes are large is split in two:

        ||sum_k n_k d_k / n|| < eps max_k ||d_k||

    into the halves whose nearest sites, by the cosine of their changes d_k, are furthest apart (single linkage, which
    makes the largest cosine across the cut as small as it can be), as long as sqrt((1 - that cosine) / 2) > gamma_max.
    Each half goes on from the mean of its own replies. The paper compares the two norms with a threshold each, in units
    that depend on network and learning rate; here it is their quotient. A group is split only when all of it has
    answered, and not before `wait` rounds (20 in the authors' code).
    """

    eps: float = 0.25
    gamma_max: float = 0.0
    wait: int = 20

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_positive(self, "eps")
        if not 0 <= self.gamma_max < 1:
            raise ValueError(f"strategy.gamma_max={self.gamma_max}: must lie in [0, 1).")
        if self.wait < 0:
            raise ValueError(f"strategy.wait={self.wait}: must be >= 0, rounds before the first split.")
        if self.groups:
            raise ValueError("strategy.groups: strategy=cfl finds them; strategy=clustered is told them.")

    def refuses(self, company: Company) -> str | None:
        """Groups are found, so none need be named."""
        if company.personal:
            return super().refuses(company)
        return FedAvg.refuses(self, company)

    def refuses_sites(self, sites: Collection[str]) -> str | None:
        """Any will do."""
        return None

    def grouped(
        self, old: Arrays, replies: Sequence[Reply], memory: Memory, group: Group
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """The groups so far, and those that are split now."""
        of = dict(memory.facts.get(GROUPS) or dict.fromkeys(group.names, FIRST))
        rounds, by_site = memory.facts.get(ROUNDS, 0) + 1, {reply.site: reply for reply in replies}
        if rounds > self.wait:
            for name, members in members_of(of).items():
                if len(members) < 2 or not by_site.keys() >= set(members):
                    continue
                model = self.given(old, memory, self.version(memory, members[0]))
                of |= self._split(name, [by_site[site] for site in members], model, sorted(group.trainable))
        return of, {ROUNDS: rounds}

    def _split(
        self, name: str, replies: Sequence[Reply], model: Arrays, arrays: Sequence[str]
    ) -> Mapping[str, str]:
        """New groups of the sites, {} where they stay together."""
        changes = torch.stack([change(reply, model, arrays) for reply in replies])
        norms = changes.norm(dim=1)
        cases = torch.tensor([float(reply.cases) for reply in replies], dtype=torch.float64)
        mean = (cases[:, None] * changes).sum(0) / cases.sum()
        if not mean.norm() < self.eps * norms.max() or not norms.min() > 0:
            return {}
        cosines = (changes @ changes.T / norms[:, None] / norms[None]).clamp(-1, 1).numpy()
        halves = bipartition(cosines)
        across = cosines[np.ix_(halves, ~halves)].max()
        if not ((1 - across) / 2) ** 0.5 > self.gamma_max:
            return {}
        return {r.site: f"{name}.{1 if half else 2}" for r, half in zip(replies, halves, strict=True)}


def change(reply: Reply, model: Arrays, arrays: Sequence[str]) -> Tensor:
    """The change of all `arrays` as one vector, float64."""
    parts = [torch.tensor(reply.arrays[name]).double() - model[name].double() for name in arrays]
    return torch.cat([part.flatten() for part in parts])


def bipartition(cosines: np.ndarray) -> np.ndarray:
    """Which of n sites belong to the half of the first one, bool [n], from their cosines [n, n]."""
    distances = np.clip(1 - cosines, 0, None)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "single")
    labels = fcluster(tree, 2, "maxclust")
    return np.asarray(labels == labels[0])

"""Collaboration without a mean: a model goes from institution to institution (Sheller et al., BrainLes 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedbrats.algorithms.base import Company, Memory
from fedbrats.algorithms.fedavg import FedAvg

HIDES = (
    "gives the model of one site to the next, which no sum can hide; set privacy.secure_aggregation to false, or "
    "choose strategy=fedavg"
)


@dataclass(frozen=True, kw_only=True)
class OneByOne(FedAvg):
    """In every round one site trains, and its model is the next."""

    any_mean: ClassVar[bool] = False

    def refuses(self, company: Company) -> str | None:
        """What speaks against it: there is no sum to hide in."""
        return HIDES if company.secure_aggregation else super().refuses(company)


@dataclass(frozen=True, kw_only=True)
class Cyclic(OneByOne):
    """Cyclic institutional incremental learning: the sites take turns, round by round, in the order of their names."""

    def asked(self, sites: Sequence[str], round_: int, rounds: int, memory: Memory) -> list[str]:
        """One site after the other, and again from the first."""
        return [sites[(round_ - 1) % len(sites)]] if sites else []


@dataclass(frozen=True, kw_only=True)
class Incremental(OneByOne):
    """Institutional incremental learning: each site trains once, for its share of the rounds, and then no more."""

    def asked(self, sites: Sequence[str], round_: int, rounds: int, memory: Memory) -> list[str]:
        """The site whose turn it is; with fewer rounds than sites, the last ones have none."""
        return [sites[min((round_ - 1) * len(sites) // rounds, len(sites) - 1)]] if sites else []

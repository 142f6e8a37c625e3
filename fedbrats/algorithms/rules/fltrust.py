"""FLTrust (Cao et al., "Byzantine-robust federated learning via trust bootstrapping", NDSS 2021, Section IV)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Company, Group, NoModel, Reply
from fedbrats.algorithms.fedavg import WeightedMean
from fedbrats.algorithms.rules.rule import Rule


@dataclass(frozen=True, kw_only=True)
class FLTrust(Rule):
    """A change counts as far as it points where that of a trusted site, the root, points, and is made as long as it:

        t_k = max(0, cos(d_k, d_0)),   x <- x + sum_k t_k d_k ||d_0|| / ||d_k|| / sum_k t_k,   d_k = x_k - x

    In the paper the server itself trains on a small clean data set. Here a site holds it, which is trusted, trains like
    the others and counts as one of them, with t = 1. A round without its reply keeps the old model. Directions and
    lengths are those of all trained arrays together; running statistics are averaged by t_k.
    """

    root: str = ""

    def refuses(self, company: Company) -> str | None:
        """Somebody has to be trusted."""
        if not self.root:
            return "holds every site against a trusted one; name it, strategy.root=<site>"
        return super().refuses(company)

    def refuses_sites(self, sites: Collection[str]) -> str | None:
        """The root must be one of them."""
        if self.root in sites:
            return None
        return (
            f"trusts strategy.root={self.root}, which does not train; name one of {', '.join(sorted(sites))}"
        )

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The model and the trusted changes.

        Raises:
            NoModel: the root has not replied, or has changed nothing.
        """
        names = sorted(group.trainable)
        root = next((reply for reply in replies if reply.site == self.root), None)
        if root is None:
            raise NoModel(f"the root of trust {self.root} (strategy.root) has not replied")
        trusted = _changes(old, root, names)
        length = _inner(trusted, trusted) ** 0.5
        if length == 0:
            raise NoModel(f"the root of trust {self.root} (strategy.root) has changed nothing")
        trained, statistics = WeightedMean(), WeightedMean()
        for reply in replies:
            changes = _changes(old, reply, names)
            own = _inner(changes, changes) ** 0.5
            trust = max(0.0, _inner(changes, trusted) / (own * length)) if own else 0.0
            if trust:
                trained.take(
                    {name: (change * (length / own)).numpy() for name, change in changes.items()}, trust
                )
                statistics.take({name: a for name, a in reply.arrays.items() if name not in changes}, trust)
        return statistics.arrays | {name: old[name] + change for name, change in trained.arrays.items()}


def _changes(old: Arrays, reply: Reply, names: Sequence[str]) -> dict[str, Tensor]:
    return {name: torch.tensor(reply.arrays[name]) - old[name] for name in names}


def _inner(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Inner product over all arrays, in float64."""
    return float(sum((one[name].double() * other[name].double()).sum() for name in one))

"""FedDyn (Acar et al., "Federated learning based on dynamic regularization", ICLR 2021, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import (
    Arrays,
    Beside,
    Collector,
    Company,
    Group,
    Left,
    Memory,
    Penalty,
    check_positive,
)
from fedbrats.algorithms.fedavg import EqualMean, FedAvg
from fedbrats.arrays import stored


@dataclass(frozen=True, kw_only=True)
class FedDyn(FedAvg):
    """Each site's loss gets a term that changes from round to round, so that its minimum becomes that of all sites:

        site:    y = argmin_w F_k(w) - <g_k, w> + alpha/2 ||w - x||^2,   g_k <- g_k - alpha (y - x)
        server:  h <- h - alpha / N sum_k (y_k - x),   x <- mean_k y_k - h / alpha

    with g_k and h zero at first, sums over the sites that replied, N all sites, and equal weights as printed. g_k stays
    at the site. Running statistics are averaged and have no term; trained arrays that stay at the sites
    (personalization) have none either. The term is one of weights alone, so with patient-level privacy it comes after
    the noise, and g_k is worked out of what is released. A reply that is lost after the site has trained leaves its
    change out of h for good.
    """

    keeps_state: ClassVar[bool] = True
    any_mean: ClassVar[bool] = False

    alpha: float = 0.01

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_positive(self, "alpha")

    def refuses(self, company: Company) -> str | None:
        """g_k is a gradient only at what a site reaches from x."""
        if company.own_start:
            return (
                "pulls a site towards what it receives, which with this personalization it does not begin at"
            )
        return super().refuses(company)

    def collect(self, memory: Memory) -> EqualMean:
        """The mean of the sites, each alike."""
        return EqualMean()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """x and h; running statistics become their mean."""
        new, kept, share = dict(found.arrays), dict[str, Tensor](), found.replies / group.sites
        for name in [name for name in old if name in group.trainable]:
            change = self.alpha * share * (new[name] - old[name])
            kept[name] = memory.arrays[name] - change if name in memory.arrays else -change
            new[name] = new[name] - kept[name] / self.alpha
        return new, Memory(kept)

    def begin(self, network: nn.Module, site: Beside) -> Penalty | None:
        """alpha/2 ||w - x||^2 - <g_k, w>."""
        terms = []
        for name, start in site.start.items():
            weight = network.get_parameter(name)
            own = site.kept.get(name)
            terms.append((weight, start.to(weight.device), None if own is None else own.to(weight.device)))
        if not terms:
            return None

        def term() -> Tensor:
            pulls = [self.alpha / 2 * (w - x).square().sum() for w, x, _ in terms]
            slopes = [-(w * g).sum() for w, _, g in terms if g is not None]
            return torch.stack([*pulls, *slopes]).sum()

        return term

    def end(self, network: nn.Module, site: Beside, steps: int, rate: float) -> Left:
        """The new g_k."""
        kept = {}
        for name, start in site.start.items():
            change = self.alpha * (stored(network.get_parameter(name)) - start)
            kept[name] = site.kept[name] - change if name in site.kept else -change
        return Left(kept)

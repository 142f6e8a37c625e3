"""SCAFFOLD (Karimireddy et al., ICML 2020, Algorithm 1 with option II for the control variates)."""

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
    Reply,
    check_positive,
)
from fedbrats.algorithms.fedavg import EqualMean, FedAvg, WeightedMean


@dataclass(frozen=True, kw_only=True)
class Scaffold(FedAvg):
    """Sites correct every gradient by c - c_k: c estimates the direction of all sites, c_k that of the site itself.

    A site takes K steps y <- y - rate (g(y) - c_k + c) from y = x, then

        c_k+ <- c_k - c + (x - y) / (K rate)         what it keeps
        c_k+ - c_k                                   what it sends, beside y

    and the server, from the set S of N sites that replied, with equal weights as printed:

        x <- x + lr / |S| sum (y - x)
        c <- c + 1 / N sum (c_k+ - c_k)

    The correction is a term of the loss that is linear in the weights, so with patient-level privacy it comes after the
    noise, and c_k+ is worked out of what is released. Running statistics are averaged and have no control variate;
    trained arrays that stay at the sites (personalization) have none either. A reply that is lost after the site has
    trained leaves its change out of c for good.
    """

    beside: ClassVar[bool] = True
    keeps_state: ClassVar[bool] = True
    any_mean: ClassVar[bool] = False

    lr: float = 1.0  # eta_g, of the server

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        check_positive(self, "lr")

    def refuses(self, company: Company) -> str | None:
        """(x - y) / (K rate) is a mean gradient only after K plain steps from x."""
        reads = "reads a site's mean gradient off the way that its weights have gone, which"
        if not company.plain_descent:
            return f"{reads} works for gradient descent without momentum only; set train/optimizer=sgd_plain"
        if company.clip_norm is not None:
            return f"{reads} clipping of the gradient changes; set train.clip_norm=null"
        if company.own_start:
            return f"{reads} must begin at what it receives; with this personalization it does not"
        return super().refuses(company)

    def told(self, model: Arrays, memory: Memory, group: Group) -> dict[str, Tensor]:
        """c, zero at first."""
        trained = {name: array for name, array in model.items() if name in group.trainable}
        return {name: memory.arrays.get(name, torch.zeros_like(array)) for name, array in trained.items()}

    def collect(self, memory: Memory) -> EqualMeans:
        """The means of y and of c_k+ - c_k."""
        return EqualMeans()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """x and c; running statistics become their mean."""
        assert isinstance(found, EqualMeans)
        new, share = dict(found.arrays), found.replies / group.sites
        if self.lr != 1:
            for name in found.changes:
                new[name] = old[name] + self.lr * (new[name] - old[name])
        c = {
            name: share * change if name not in memory.arrays else memory.arrays[name] + share * change
            for name, change in found.changes.items()
        }
        return new, Memory(c)

    def begin(self, network: nn.Module, site: Beside) -> Penalty | None:
        """<c - c_k, w>, whose gradient is the correction."""
        weights = [(network.get_parameter(name), c, site.kept.get(name)) for name, c in site.received.items()]
        pairs = [(w, (c if own is None else c - own).to(w.device)) for w, c, own in weights]
        if not pairs:
            return None
        return lambda: torch.stack([(w * correction).sum() for w, correction in pairs]).sum()

    def end(self, network: nn.Module, site: Beside, steps: int, rate: float) -> Left:
        """The new c_k and its change, c_k+ - c_k = (x - y) / (K rate) - c."""
        kept, sent = {}, {}
        for name, c in site.received.items():
            weights = network.get_parameter(name).detach().cpu()
            change = (site.start[name] - weights) / (steps * rate) - c
            kept[name] = site.kept[name] + change if name in site.kept else change.clone()
            sent[name] = change
        return Left(kept, sent)


class EqualMeans(EqualMean):
    """Equal-weight means of the models and of what came beside them."""

    def __init__(self) -> None:
        """Start with no reply."""
        super().__init__()
        self._beside = WeightedMean()

    @property
    def changes(self) -> dict[str, Tensor]:
        """Mean change of the control variates."""
        return self._beside.arrays

    def add(self, reply: Reply) -> None:
        """Add one checked reply."""
        super().add(reply)
        self._beside.take(reply.beside, 1.0)

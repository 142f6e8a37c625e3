"""What every way to personalise has in common: the hooks that a site calls, and what a site offers in return."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Penalty
from fedbrats.arrays import travelling
from fedbrats.config.targets import ConfigError


class LocalWork(Protocol):
    """What a site gives a method for one round, or for the test at the end."""

    network: nn.Module  # holds the received arrays, and in the arrays that stay the site's own
    state: dict[str, Tensor]  # what `round` left last time at this site, {} at first; tensors on the CPU
    round: int  # 1-based
    steps: int  # optimiser steps of this site in a round
    patch: list[int]  # sides of a training patch, in voxels

    def penalty(self, network: nn.Module) -> Penalty | None:
        """The federated algorithm's own extra term, made while `network` holds the global weights."""
        ...

    def fit(
        self,
        name: str,
        network: nn.Module,
        penalty: Penalty | None = None,
        steps: int | None = None,
        lr_factor: float = 1.0,
    ) -> float:
        """Train `network` in place on the site's cases for `steps` (those of a round if None); mean training loss.

        `name` ("train", "personal", "finetune") keeps random numbers and optimiser state apart. "train" is what gets
        released: with patient-level differential privacy it takes the private steps; the other names never do.
        """
        ...

    def batches(self, name: str, steps: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images float32 [B, 4, *patch] and labels uint8 [B, *patch], the same that `fit` draws for `name`."""
        ...

    def optimizer(self, name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The site's optimiser for `parameters`, as `fit` uses it for `name`; it has the round's learning rate."""
        ...

    def value(self, outputs: Any, labels: Tensor) -> Tensor:
        """Scalar training loss of one batch; `outputs` as the network gives them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Personalization:
    """No personalisation: everything travels, and a site's own model is the global one."""

    keeps_state: ClassVar[bool] = False  # whether a site remembers what the server's checkpoints do not hold
    own_start: ClassVar[bool] = (
        False  # whether what is sent starts from the site's own weights, not the received ones
    )
    own_steps: ClassVar[bool] = False  # whether it steps without `LocalWork.fit`, which has every term
    # How an institution that never trained gets the arrays that stay (`unseen.py`); an option only where some stay.
    unseen: str = field(default="", init=False)

    def stays(self, network: nn.Module, patch: Sequence[int]) -> tuple[str, ...]:
        """Names of the arrays (of `exchange.travelling`) that never leave a site, in order of registration.

        Args:
            network: what is federated.
            patch: sides that it takes, in voxels.

        Raises:
            ConfigError: `network` has nothing of the kind; the message, or what follows from `NoNorms`, names the
                options that would work.
        """
        return ()

    def unsound_with_dp(self) -> str | None:
        """Why patient-level differential privacy refuses this method; None where it is sound."""
        return None

    def round(self, work: LocalWork) -> float:
        """One round at a site.

        On return `work.network` holds what is sent (the caller keeps the arrays that stay), and `work.state` what the
        site remembers.

        Returns:
            Mean training loss.
        """
        return work.fit("train", work.network, work.penalty(work.network))

    def personal(self, work: LocalWork) -> None:
        """Put the site's own model into `work.network`, which holds the received arrays and those that stay."""


def local_and_travelling(network: nn.Module, stays: Iterable[str]) -> tuple[list[str], list[str]]:
    """The arrays of `network` that stay at a site and those that travel, each once, in order of registration.

    An array that a network registers several times is listed under its first name, as in `exchange.travelling`.

    Raises:
        ConfigError: a name that is no array of the network, or nothing would travel.
    """
    home, names = set(stays), list(travelling(network))
    if strangers := sorted(home - set(names)):
        raise ConfigError(f"personalization: {strangers[:3]} are no arrays of {type(network).__name__}.")
    if not set(names) - home:
        raise ConfigError(
            f"personalization: all {len(names)} arrays of {type(network).__name__} would stay at the sites, so nothing "
            "would be learned together; keep fewer layers local."
        )
    return [n for n in names if n in home], [n for n in names if n not in home]


def check_strength(lam: float) -> None:
    """Check the option `lam` of a method.

    Raises:
        ValueError: it is negative or not finite.
    """
    if not 0 <= lam < math.inf:
        raise ValueError(f"personalization.lam={lam}: must be a finite number >= 0.")


def added(first: Penalty | None, second: Penalty | None) -> Penalty | None:
    """The sum of two extra loss terms, either of which may be missing."""
    if first is None or second is None:
        return first or second
    return lambda: first() + second()


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of all that `network` would save, counters too, each array once under its first name."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in _saved(network).items()
    }


def restore(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `snapshot` copied; device and memory layout of `network` stay as they are.

    Raises:
        ValueError: the names are not those of `network`.
    """
    own = _saved(network)
    if own.keys() != tensors.keys():
        raise ValueError(
            f"a stored model has other arrays than the network: {sorted(own.keys() ^ tensors.keys())[:3]}"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _saved(network: nn.Module) -> dict[str, Tensor]:
    once: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        once.setdefault(id(tensor), (name, tensor))
    return dict(once.values())

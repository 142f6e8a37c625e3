"""What the two halves of an algorithm are given and what they return; `fedavg.FedAvg` has the hooks themselves.

The server half sees one cohort (sites that train one model together) and runs in this order: `told` before a round,
`collect` when it begins, the collector's `add` once per usable reply in site order, `step` when enough have come. The
site half runs at each site: `begin` when the received model is loaded, `end` when it has been trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Arrays = Mapping[str, Tensor]
FP32, FP16, TOP_K, PARTIAL = "fp32", "fp16", "top_k", "partial"  # `strategy.transfer`
TRANSFERS = (FP32, FP16, TOP_K, PARTIAL)
SPARSE = (TOP_K, PARTIAL)
Penalty = Callable[[], Tensor]  # an extra loss term (scalar) of the weights as they are


@dataclass(frozen=True)
class Transfer:
    """How arrays travel to the server (`federation/transfer.py`).

    kind: of `TRANSFERS`; share: of the changes of an array that are sent, where the kind is of `SPARSE`.
    """

    kind: str = FP32
    share: float = 1.0

    @property
    def changes(self) -> bool:
        """Whether changes travel in the place of arrays."""
        return self.kind != FP32

    @property
    def keeps(self) -> bool:
        """Whether a site keeps what was left out for its next round."""
        return self.kind in (FP16, TOP_K)

    def number(self, size: int) -> int:
        """How many changes of an array of `size` numbers travel, at least one."""
        return max(1, math.ceil(self.share * size - 1e-9))


@dataclass(frozen=True)
class Reply:
    """One usable reply of a round. Arrays are by name, read-only, of the agreed shapes and dtypes."""

    site: str
    arrays: Mapping[str, np.ndarray]
    cases: int  # training cases of the site, n_k
    steps: int  # optimiser steps that it took
    loss: float | None = None  # mean training loss; None where it stays at the site
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)  # of the trained arrays, where some travel
    # Validation loss before and after training, where it is asked for (`needs_progress`) and there are cases.
    progress: tuple[float, float] | None = None


class NoModel(ValueError):
    """Replies that cannot become a model; the message says why, and the old one stays."""


class Collector(Protocol):
    """What the replies of one round become; they are added one at a time, in the order of the sites."""

    @property
    def replies(self) -> int:
        """Replies so far."""

    @property
    def arrays(self) -> dict[str, Tensor]:
        """What they became, by name; read when all have been added."""

    def add(self, reply: Reply) -> None:
        """Add one checked reply.

        Raises:
            ValueError: it cannot be used after all; it is then left out and the message is the reason.
        """


@dataclass(frozen=True)
class Memory:
    """What the server remembers of one model from round to round; saved with it in every checkpoint."""

    arrays: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # anything JSON holds


@dataclass(frozen=True)
class Group:
    """What the server half knows of its cohort."""

    sites: int  # all that belong to it, N, whether asked or not
    trainable: frozenset[str]  # the arrays that are trained; others are running statistics
    names: tuple[str, ...] = ()  # of the sites, in their order


@dataclass(frozen=True)
class Beside:
    """What an algorithm has at a site beside the model, by name of the trained array, on the CPU."""

    start: dict[str, Tensor] = field(default_factory=dict)  # the weights as they were received
    received: dict[str, Tensor] = field(default_factory=dict)  # what `told` gave
    kept: dict[str, Tensor] = field(default_factory=dict)  # what the site kept last time, {} at first
    numbers: dict[str, float] = field(default_factory=dict)  # what `said` gave


@dataclass(frozen=True)
class Left:
    """What the site half leaves after a round."""

    kept: dict[str, Tensor] = field(default_factory=dict)  # for the site's own next round; stays there
    sent: dict[str, Tensor] = field(default_factory=dict)  # travels beside the model


@dataclass(frozen=True, kw_only=True)
class Company:
    """What else a run does, as far as an algorithm may have something against it."""

    patient_privacy: bool = False  # privacy=dp_sgd: training losses stay at the sites
    central_privacy: bool = False  # privacy=central: the server clips the updates and noises their mean
    secure_aggregation: bool = False  # the server sees the weighted sum of the replies and none of them
    personal: bool = False  # a personalization of any kind
    own_start: bool = False  # personalization in which a site does not start from what it receives
    optimizer: torch.optim.Optimizer | None = None  # of the sites
    clip_norm: float | None = None  # train.clip_norm
    network: nn.Module | None = None  # of the run, without numbers

    @property
    def plain_descent(self) -> bool:
        """Whether the sites go by gradient descent without momentum, so that all their steps count alike."""
        return isinstance(self.optimizer, torch.optim.SGD) and not self.optimizer.param_groups[0]["momentum"]


def check_positive(algorithm: object, *keys: str) -> None:
    """Check that these parameters are positive numbers. Raises ValueError: naming the first that is not."""
    for key in keys:
        if not 0 < (value := getattr(algorithm, key)) < math.inf:
            raise ValueError(f"strategy.{key}={value}: must be a positive number.")


def check_shares(algorithm: object, *keys: str) -> None:
    """Check that these parameters are shares of one. Raises ValueError: naming what is wrong."""
    for key in keys:
        if not 0 <= (value := getattr(algorithm, key)) <= 1:
            raise ValueError(f"strategy.{key}={value}: must lie in [0, 1], a share of the weight.")
    if abs(sum(getattr(algorithm, key) for key in keys) - 1) > 1e-6:
        shares = ", ".join(f"strategy.{key}={getattr(algorithm, key)}" for key in keys)
        raise ValueError(f"{shares}: must add up to 1.")


def check_below_one(algorithm: object, *keys: str) -> None:
    """Check that these parameters lie in [0, 1). Raises ValueError: naming the first that does not."""
    for key in keys:
        if not 0 <= (value := getattr(algorithm, key)) < 1:
            raise ValueError(f"strategy.{key}={value}: must lie in [0, 1).")

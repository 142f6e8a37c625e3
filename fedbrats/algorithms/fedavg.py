"""Federated averaging (McMahan et al., AISTATS 2017, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from fedbrats.algorithms.base import (
    FP32,
    SPARSE,
    TRANSFERS,
    Arrays,
    Beside,
    Collector,
    Company,
    Group,
    Left,
    Memory,
    Penalty,
    Reply,
    Transfer,
)
from fedbrats.arrays import all_read_only

SIMULATED, STRICT = 0.5, 1.0  # quorum of a simulation and of a deployment, where the configuration has none
MISSED_SHARE = 0.1
MOST_CASES = 10_000  # BraTS 2023 has 2040 of all its institutions together


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Both halves of an algorithm: what the server makes of the replies, what a site does beside plain training.

    Every other algorithm is a subclass that overrides what it does differently. None of them changes what it is given;
    what has to be remembered is returned (`step`, `end`).
    """

    beside: ClassVar[bool] = False  # an array for every trained one travels beside the model, both ways
    keeps_state: ClassVar[bool] = False  # a site keeps something from round to round
    needs_losses: ClassVar[bool] = False  # the server must know the sites' training losses
    needs_progress: ClassVar[bool] = False  # a site tells its validation loss before and after training
    any_mean: ClassVar[bool] = True  # the replies become a mean, in whose place another mean may stand
    versions: ClassVar[bool] = False  # sites get different models, see `version`
    numbers: ClassVar[tuple[str, ...]] = ()  # names of the finite numbers that `said` gives to every site

    # Share of the asked sites whose reply must be usable, else the round keeps the old model; None is all of them, but
    # `SIMULATED` in a simulation, where `checks.by_engine` fills it in.
    quorum: float | None = None
    missed_share: float = MISSED_SHARE  # a site that misses more of the rounds turns the report's head red
    max_failed_rounds: int = 3  # failed rounds in a row that end the run
    timeout: float = 3600.0  # seconds the server waits for the replies of one phase
    max_cases: int = MOST_CASES  # that a site may register for a split, as it weighs with them
    transfer: str = FP32  # to the server: changes in fp16, or only the largest, see federation/transfer.py
    transfer_share: float = 0.1  # of the changes of every array that top_k and partial send

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        quorum = STRICT if self.quorum is None else self.quorum
        if not (isinstance(quorum, int | float) and 0 < quorum <= 1):
            raise ValueError(f"strategy.quorum={self.quorum!r}: must lie in (0, 1], a share of the sites.")
        if not 0 <= self.missed_share <= 1:
            raise ValueError(
                f"strategy.missed_share={self.missed_share}: must lie in [0, 1], a share of the rounds."
            )
        if self.transfer not in TRANSFERS:
            raise ValueError(f"strategy.transfer={self.transfer}: choose one of {', '.join(TRANSFERS)}.")
        if not 0 < self.transfer_share <= 1:
            raise ValueError(f"strategy.transfer_share={self.transfer_share}: must lie in (0, 1].")
        if self.transfer not in SPARSE and self.transfer_share != FedAvg.transfer_share:
            raise ValueError(
                f"strategy.transfer_share={self.transfer_share}: strategy.transfer={self.transfer} sends every change; "
                f"set that to {' or '.join(SPARSE)}."
            )
        if self.max_failed_rounds < 1:
            raise ValueError(f"strategy.max_failed_rounds={self.max_failed_rounds}: must be at least 1.")
        if self.max_cases < 1:
            raise ValueError(f"strategy.max_cases={self.max_cases}: must be at least 1.")
        if not self.timeout > 0:
            raise ValueError(f"strategy.timeout={self.timeout}: must be positive (seconds).")

    def refuses(self, company: Company) -> str | None:
        """Why this algorithm cannot be combined with what the run does besides, with the fix; None where it can."""
        if self.needs_losses and company.patient_privacy:
            return "weighs the sites by their training losses, which stay at home with privacy=dp_sgd"
        if self.needs_progress and company.patient_privacy:
            return "weighs the sites by their validation losses, which stay at home with privacy=dp_sgd"
        if not self.any_mean and company.central_privacy:
            return "makes something else of the replies than the mean that privacy=central clips and noises"
        if company.secure_aggregation and not self.any_mean:
            return (
                "needs more of the replies than their mean weighted by cases, which is all that the server sees with "
                "privacy.secure_aggregation=true; set that to false, or choose strategy=fedavg, fedprox or fedadam"
            )
        if company.secure_aggregation and self.transfer != FP32:
            return (
                f"has strategy.transfer={self.transfer}, but under masks the sites' whole arrays add up, in a ring of "
                f"their own; set it to {FP32}, or privacy.secure_aggregation to false"
            )
        return None

    def refuses_sites(self, sites: Collection[str]) -> str | None:
        """Why this algorithm cannot be used for these sites, all that train, with the fix; None where it can."""
        return None

    @property
    def way(self) -> Transfer:
        """How arrays travel to the server."""
        return Transfer(self.transfer, self.transfer_share)

    # server half

    @property
    def least_sites(self) -> int:
        """Replies without which no model can be made, whatever the quorum."""
        return 1

    def needed(self, asked: int) -> int:
        """Usable replies a round needs when `asked` sites were asked."""
        quorum = STRICT if self.quorum is None else self.quorum
        return max(self.least_sites, math.ceil(quorum * asked - 1e-9))

    def asked(self, sites: Sequence[str], round_: int, rounds: int, memory: Memory) -> list[str]:
        """Who of `sites` trains in `round_` (from 1) of `rounds`; the quorum counts them."""
        return list(sites)

    def told(self, model: Arrays, memory: Memory, group: Group) -> dict[str, Tensor]:
        """What travels beside `model` to every site (`beside`), by name of the trained array."""
        return {}

    def said(self, memory: Memory) -> dict[str, float]:
        """The `numbers` that every site is told with the model of a round."""
        return {}

    def version(self, memory: Memory, site: str) -> str:
        """Which model a site gets, "" for that of the federation."""
        return ""

    def given(self, model: Arrays, memory: Memory, version: str) -> Arrays:
        """The model of that name."""
        return model

    def collect(self, memory: Memory) -> Collector:
        """What collects the replies of a round."""
        return WeightedMean()

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        """The next model and memory, from the old ones and what the replies became.

        Called only when the quorum is met. The result is used only if it is finite.

        Raises:
            NoModel: the replies cannot become a model; the old one stays.
        """
        return found.arrays, memory

    # site half

    def begin(self, network: nn.Module, site: Beside) -> Penalty | None:
        """Extra loss term of one round, made when `network` holds the received weights; None for FedAvg.

        Under patient-level privacy it is added after the noise, so it may look at weights only.
        """
        return None

    def end(self, network: nn.Module, site: Beside, steps: int, rate: float) -> Left:
        """What is kept and sent after `steps` optimiser steps at learning rate `rate`; `network` is the trained one."""
        return Left()


class WeightedMean:
    """Running weighted mean of the sites' arrays, sum_k n_k w_k / sum_k n_k, that keeps only one model in memory.

    Replies are added one at a time in site order. Each moves the mean by its share of the weight seen so far, so
    that a single reply, or equal replies, come out exactly as they went in.
    """

    def __init__(self) -> None:
        """Start with no reply."""
        self.arrays: dict[str, Tensor] = {}
        self.weight = 0.0
        self.replies = 0

    def add(self, reply: Reply) -> None:
        """Add one checked reply, weighted by its training cases."""
        self.take(reply.arrays, float(reply.cases))

    def take(self, arrays: Mapping[str, np.ndarray], weight: float) -> None:
        """Add `arrays` (any float dtype) with their positive `weight`."""
        self.weight += weight
        self.replies += 1
        share = weight / self.weight
        for name, value in all_read_only(arrays).items():
            if self.replies == 1:
                self.arrays[name] = value.clone()
            else:
                self.arrays[name].lerp_(value, share)


class EqualMean(WeightedMean):
    """The same with every site alike, whatever its cases."""

    def add(self, reply: Reply) -> None:
        """Add one checked reply."""
        self.take(reply.arrays, 1.0)

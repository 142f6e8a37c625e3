"""Federated averaging (McMahan et al., AISTATS 2017, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Penalty = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Both halves of the algorithm: what the server does with the replies, what a site adds to its loss."""

    quorum: float = (
        0.5  # share of the asked sites whose reply must be usable, else the round keeps the old model
    )
    max_failed_rounds: int = 3  # failed rounds in a row that end the run
    timeout: float = 3600.0  # seconds the server waits for the replies of one phase

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        if not 0 < self.quorum <= 1:
            raise ValueError(f"strategy.quorum={self.quorum}: must lie in (0, 1], a share of the sites.")
        if self.max_failed_rounds < 1:
            raise ValueError(f"strategy.max_failed_rounds={self.max_failed_rounds}: must be at least 1.")
        if not self.timeout > 0:
            raise ValueError(f"strategy.timeout={self.timeout}: must be positive (seconds).")

    # server half

    def weight(self, cases: int) -> float:
        """Weight of a site's reply: its number of training cases n_k."""
        return float(cases)

    def needed(self, asked: int) -> int:
        """Usable replies a round needs when `asked` sites were asked."""
        return max(1, math.ceil(self.quorum * asked - 1e-9))

    # site half

    def penalty(self, network: nn.Module) -> Penalty | None:
        """Extra loss term of one round, made when `network` holds the global weights; None for FedAvg."""
        return None


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

    def add(self, arrays: Mapping[str, np.ndarray], weight: float) -> None:
        """Add one checked reply (`arrays` by name, any float dtype) with its positive `weight`."""
        self.weight += weight
        self.replies += 1
        share = weight / self.weight
        for name, array in arrays.items():
            value = torch.from_numpy(array)
            if self.replies == 1:
                self.arrays[name] = value.clone()
            else:
                self.arrays[name].lerp_(value, share)

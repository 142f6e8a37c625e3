"""Ranger: rectified Adam whose weights are drawn back to slow ones every few steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn


def ranger(
    params: Iterable[nn.Parameter],
    lr: float = 1e-3,
    betas: Sequence[float] = (0.95, 0.999),
    eps: float = 1e-5,
    weight_decay: float = 0.0,
    period: int = 6,
    share: float = 0.5,
) -> torch.optim.RAdam:
    """RAdam (Liu et al., ICLR 2020; torch's) with Lookahead (Zhang et al., NeurIPS 2019, Algorithm 1) around it.

    Papers of BrainLes 2021 name "Ranger" without its numbers; the defaults are those of its release of 2019. Its later
    centralisation of gradients is left out.

    In a federation the slow weights of a site start every round at the weights that the round starts with, so they are
    not kept with the moments: those of the round before would draw the site back to before the average. Steps are
    counted from there too; what a round has left over after the last multiple of `period` is sent as it is.

    Args:
        params: to train.
        lr: learning rate of RAdam.
        betas: of RAdam.
        eps: of RAdam.
        weight_decay: of RAdam, added to the gradient.
        period: steps of RAdam before each step of the slow weights, Lookahead's k.
        share: of the way to the fast weights that this step goes, Lookahead's alpha; the fast ones then go on there.

    Raises:
        ValueError: `period` or `share` out of range; the rest as `torch.optim.RAdam` says.
    """
    if period < 1:
        raise ValueError(f"train.optimizer.period={period}: must be 1 step or more.")
    if not 0 < share <= 1:
        raise ValueError(f"train.optimizer.share={share}: must lie in (0, 1].")
    first, second = betas
    optimizer = torch.optim.RAdam(params, lr=lr, betas=(first, second), eps=eps, weight_decay=weight_decay)
    lookahead = _Lookahead(period, share)
    optimizer.register_step_pre_hook(lookahead.before)
    optimizer.register_step_post_hook(lookahead.after)
    return optimizer


class _Lookahead:
    """The slow weights, and when their turn is."""

    def __init__(self, period: int, share: float) -> None:
        self.period, self.share = period, share
        self.steps = 0
        self.slow: list[torch.Tensor] = []

    def before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Before the first step the slow weights are the weights."""
        if not self.steps:
            self.slow = [p.detach().clone() for p in _parameters(optimizer)]
        self.steps += 1

    def after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """After every `period` steps the slow weights come nearer to the weights, which are then set to them."""
        if self.steps % self.period:
            return
        with torch.no_grad():
            for slow, parameter in zip(self.slow, _parameters(optimizer), strict=True):
                slow.lerp_(parameter, self.share)
                parameter.copy_(slow)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

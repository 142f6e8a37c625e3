"""How a loss is told the global round: with every call, so that no loss remembers one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]  # of logits and target [B, C, ...]: [B] or a scalar


def value(loss: Callable[..., Tensor], logits: Tensor, target: Tensor, when: float) -> Tensor:
    """`loss` of logits and target [B, C, ...] at `when`, 0 in the first global round and 1 in the last.

    A loss that changes over the rounds, or has one inside, says so by an attribute `by_round` that is true and takes
    `when` as its third argument; any other is called as it is.
    """
    return loss(logits, target, when) if getattr(loss, "by_round", False) else loss(logits, target)


def in_round(loss: Callable[..., Tensor], round_: int, rounds: int) -> Loss:
    """`loss` as it is in global round `round_` (1-based) of `rounds`; a single round is the first."""
    when = (round_ - 1) / max(rounds - 1, 1)
    return partial(value, loss, when=min(max(when, 0.0), 1.0))

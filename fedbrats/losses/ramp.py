"""Losses that change over the global rounds."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Ramp(nn.Module):
    """(1 - a) `before` + a `after`, with a going from `start` in the first round to `end` in the last, linearly.

    The multi-plane UNet++ paper (BrainLes 2021) adds 0.01 per epoch to a = 0.01 over 50 epochs of Dice
    (`before`) and boundary loss (`after`), so it ends at 0.50. A site that counted its own epochs would optimise
    another objective than a site that had missed a round; the global round is the same for all.
    """

    def __init__(self, start: float, end: float, before: nn.Module, after: nn.Module) -> None:
        """Until a round is set, a is `start`.

        Raises:
            ValueError: `start` or `end` lies outside [0, 1].
        """
        super().__init__()
        for key, value in (("start", start), ("end", end)):
            if not 0 <= value <= 1:
                raise ValueError(f"loss.{key}={value}: must lie in [0, 1].")
        self.start, self.end, self.share = float(start), float(end), float(start)
        self.before, self.after = before, after

    def at_round(self, round_: int, rounds: int) -> None:
        """Set a for global round `round_` (1-based) of `rounds`; a single round has `start`."""
        t = (round_ - 1) / max(rounds - 1, 1)
        self.share = self.start + (self.end - self.start) * min(max(t, 0.0), 1.0)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        return (1 - self.share) * self.before(logits, target) + self.share * self.after(logits, target)


def set_round(loss: Callable[[Tensor, Tensor], Tensor], round_: int, rounds: int) -> None:
    """Tell `loss` and every loss inside it the global round (1-based) of `rounds`; most have no use for it."""
    if isinstance(loss, nn.Module):
        for module in loss.modules():
            at_round = getattr(module, "at_round", None)
            if callable(at_round):
                at_round(round_, rounds)

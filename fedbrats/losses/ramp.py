"""Losses that change over the global rounds."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from fedbrats.losses.in_round import value


class Ramp(nn.Module):
    """(1 - a) `before` + a `after`, with a going from `start` in the first round to `end` in the last, linearly.

    The multi-plane UNet++ paper (BrainLes 2021) adds 0.01 per epoch to a = 0.01 over 50 epochs of Dice
    (`before`) and boundary loss (`after`), so it ends at 0.50. A site that counted its own epochs would optimise
    another objective than a site that had missed a round; the global round is the same for all.
    """

    by_round: ClassVar[bool] = True

    def __init__(self, start: float, end: float, before: nn.Module, after: nn.Module) -> None:
        """What to go from and to.

        Raises:
            ValueError: `start` or `end` lies outside [0, 1].
        """
        super().__init__()
        for key, share in (("start", start), ("end", end)):
            if not 0 <= share <= 1:
                raise ValueError(f"loss.{key}={share}: must lie in [0, 1].")
        self.start, self.end = float(start), float(end)
        self.before, self.after = before, after

    def forward(self, logits: Tensor, target: Tensor, when: float = 0.0) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...], `when` goes from 0 to 1."""
        share = self.start + (self.end - self.start) * when
        before, after = (value(loss, logits, target, when) for loss in (self.before, self.after))
        return (1 - share) * before + share * after

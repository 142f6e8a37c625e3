"""Coordinate-wise median (Yin et al., ICML 2018, Definition 1 and Algorithm 1, option I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group, Reply
from fedbrats.algorithms.rules.rule import Rule, in_order, median


@dataclass(frozen=True, kw_only=True)
class CoordinateMedian(Rule):
    """Every number of the model becomes the median over the sites, so fewer than half of them cannot move it at will.

    Sites count alike, whatever their cases. The paper takes the median of gradients; of models after local training it
    is the same rule applied to x + (y - x).
    """

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The median of each number."""
        return {name: in_order(replies, name, median) for name in replies[0].arrays}

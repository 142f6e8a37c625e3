"""Coordinate-wise trimmed mean (Yin et al., ICML 2018, Definition 2 and Algorithm 1, option II)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group, Reply
from fedbrats.algorithms.rules.rule import AgainstLiars, in_order


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(AgainstLiars):
    """Every number becomes the mean over the sites without its `liars` largest and as many smallest values.

    Sites count alike. The paper has a share beta of the sites at either end; a share of few sites is often none, so
    here it is their number.
    """

    @property
    def least_sites(self) -> int:
        """One value must be left."""
        return 2 * self.liars + 1

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The trimmed mean of each number."""
        kept = slice(self.liars, len(replies) - self.liars)
        return {name: in_order(replies, name, lambda v: v[kept].mean(dim=0)) for name in replies[0].arrays}

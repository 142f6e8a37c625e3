"""Krum and Multi-Krum (Blanchard et al., "Machine learning with adversaries", NeurIPS 2017, Sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Group, Reply
from fedbrats.algorithms.rules.rule import AgainstLiars, blocks, equal_mean


@dataclass(frozen=True, kw_only=True)
class Krum(AgainstLiars):
    """The model becomes that of the site whose n - f - 2 closest others are the closest, by the sum of squares.

    With `chosen` = m it is the mean of the m sites with the least sums, each alike (Multi-Krum), m at most n - f - 2.
    Distances are those of trained arrays; the running statistics are those of the sites that are chosen. The paper has
    gradients; the distances between models after local training are those between their changes.
    """

    chosen: int = 1  # m

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        if self.chosen < 1:
            raise ValueError(
                f"strategy.chosen={self.chosen}: must be at least 1, the sites that become the model."
            )

    @property
    def least_sites(self) -> int:
        """2 f + 3, and so many that `chosen` is at most n - f - 2."""
        return max(2 * self.liars + 3, self.chosen + self.liars + 2)

    def made(self, old: Arrays, replies: Sequence[Reply], group: Group) -> dict[str, Tensor]:
        """The model, or the mean, of the sites with the least sums; of equal sums the first in order."""
        sums = krum_sums(squared_distances(replies, sorted(group.trainable)), self.liars)
        best = [replies[i] for i in sums.argsort(stable=True)[: self.chosen].sort().values]
        return equal_mean(best)


def squared_distances(replies: Sequence[Reply], names: Iterable[str]) -> Tensor:
    """Squared distance of every two replies over the arrays of these names, [n, n], float64."""
    found = torch.zeros(len(replies), len(replies), dtype=torch.float64)
    for name in names:
        for values in map(Tensor.double, blocks(replies, name)):
            # Of differences, as products of far larger numbers would leave little of them.
            found += torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist").square()
    return found


def krum_sums(distances: Tensor, liars: int) -> Tensor:
    """For each of n replies the sum of its squared distances to the n - f - 2 closest others, at least one of them."""
    neighbours = max(1, len(distances) - liars - 2)
    others = distances + torch.diag(torch.full((len(distances),), float("inf"), dtype=distances.dtype))
    return others.sort(dim=1).values[:, :neighbours].sum(dim=1)

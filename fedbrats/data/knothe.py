"""The Knothe-Rosenblatt rearrangement: mass in a box of voxels becomes a cube, one axis after the other.

Rosenblatt, "Remarks on a multivariate transformation", Annals of Mathematical Statistics 1952: monotone along x, along
y in each slab of x and along z in each row. It is what optimal transport becomes where a way along x costs infinitely
more than one along y, and that infinitely more than one along z (Carlier, Galichon and Santambrogio, SIAM J. Math.
Anal. 2010). Of a mass that is constant in each voxel it is exact, and look-ups in sums are all that it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_ALMOST = 1 - 1e-9  # a point on the far face belongs to the last cell


@dataclass(frozen=True)
class Rearranged:
    """Knothe-Rosenblatt rearrangement of a mass float64 [X, Y, Z], 0 or more, in a box of voxels.

    Voxel (i, j, k) is the box of the unit cube between the neighbouring edges i of `slabs` [X + 1], (i, j) of `rows`
    [X, Y + 1] and (i, j, k) of `ends` [X, Y, Z + 1]; its volume is its share of the mass.
    """

    mass: np.ndarray

    @cached_property
    def slabs(self) -> np.ndarray:
        return _edges(self.mass.sum((1, 2)))

    @cached_property
    def rows(self) -> np.ndarray:
        return _edges(self.mass.sum(2))

    @cached_property
    def ends(self) -> np.ndarray:
        return _edges(self.mass)

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Where points [3, n] in voxels go in the unit cube; a voxel begins at its index."""
        last = np.array(self.mass.shape)[:, None] - 1
        voxels = np.clip(np.floor(points).astype(np.int64), 0, last)
        (i, j, k), share = voxels, points - voxels
        low = np.stack([self.slabs[i], self.rows[i, j], self.ends[i, j, k]])
        high = np.stack([self.slabs[i + 1], self.rows[i, j + 1], self.ends[i, j, k + 1]])
        return np.asarray(low + share * (high - low))

    def origins(self, points: np.ndarray) -> np.ndarray:
        """Where points [3, n] of the unit cube come from, in voxels, float64 [3, n]; a voxel begins at its index."""
        x, y, z = np.clip(points, 0, _ALMOST)
        i, first = _place(self.slabs[None], np.zeros(len(x), np.int64), x)
        j, second = _place(self.rows, i, y)
        k, third = _place(self.ends.reshape(-1, self.ends.shape[-1]), i * self.mass.shape[1] + j, z)
        return np.stack([i + first, j + second, k + third])


def _edges(mass: np.ndarray) -> np.ndarray:
    """Cumulative shares along the last axis, from 0 to exactly 1; 0 throughout where there is no mass."""
    sums = np.concatenate([np.zeros((*mass.shape[:-1], 1)), np.cumsum(mass, axis=-1)], axis=-1)
    return sums / np.where(sums[..., -1:] > 0, sums[..., -1:], 1)


def _place(edges: np.ndarray, line: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxel whose edges in its line of `edges` [lines, n + 1] enclose `at`, and how far in it `at` is, below 1."""
    count = edges.shape[1]
    every = (edges + np.arange(len(edges))[:, None]).reshape(-1)  # one ascending row of all
    found = np.searchsorted(every, line + at, side="right") - 1 - line * count
    found = np.clip(found, 0, count - 2)
    low, high = edges[line, found], edges[line, found + 1]
    share = np.divide(at - low, high - low, out=np.zeros_like(at), where=high > low)
    return found, np.clip(share, 0, _ALMOST)

"""K-means over sites that keep their voxels, and how stable its clusters are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment

STARTS = 3  # of which the one with the least sum of squares is kept
ITERATIONS = 100
STILL = 1e-4  # a centre that moves less has come to rest


def federated_kmeans(sites: Sequence[np.ndarray], clusters: int, seed: int) -> np.ndarray:
    """Centres of K-means over the points of all sites (Lloyd), exactly as if they were in one place.

    A site sends, in each iteration, the number and the sum of its points in every cluster and their sum of squares. It
    begins as k-FED (Dennis et al., ICML 2021): each site with enough points clusters its own by k-means++, and the
    server the centres of all sites. "Standard K-means" is all that the paper on tumour sub-regions (BrainLes 2021)
    prints.

    Args:
        sites: float [n, M] each; n may be 0.
        clusters: K.
        seed: of the starts.

    Returns:
        Centres float64 [clusters, M], that of most points first.

    Raises:
        ValueError: no site has as many points as there are clusters.
    """
    if max((len(points) for points in sites), default=0) < clusters:
        raise ValueError(f"clusters={clusters}: no site has as many voxels; lower it or raise voxels.")
    filled = [points.astype(np.float64) for points in sites if len(points)]
    found = [_settle(filled, _start(filled, clusters, seed + start)) for start in range(STARTS)]
    return min(found, key=lambda one: one[1])[0]  # the first of two that are as good


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Number of the nearest centre of each point, int64 [n]; the first of two that are as near."""
    chosen: np.ndarray = _nearness(points, centres).argmax(1)
    return chosen


def disagreement(first: np.ndarray, second: np.ndarray, sites: Sequence[np.ndarray]) -> float:
    """Ls of equation 1: share of the points that two clusterings put into different clusters, in [0, 1].

    The clusters of one are named as suits the other best: min over permutations pi of names, as in the paper's source
    [28], where its own text calls pi "repeated permutations of dataset". A site sends a table of counts [K, K].

    Args:
        first: centres float [K, M].
        second: centres of the other, as many.
        sites: points float [n, M], of the validation cases.

    Raises:
        ValueError: not a single point.
    """
    clusters = len(first)
    counts = np.zeros((clusters, clusters), np.int64)
    for points in sites:
        both = clusters * nearest(points, first) + nearest(points, second)
        counts += np.bincount(both, minlength=clusters**2).reshape(clusters, clusters)
    if not counts.sum():
        raise ValueError("no voxel to compare two clusterings on")
    agreed = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return float(1 - agreed / counts.sum())


def _nearness(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """x c - c^2 / 2 for points x and centres c, [n, K]: (x^2 - |x - c|^2) / 2, by one product of matrices."""
    found: np.ndarray = points @ centres.T - np.square(centres).sum(1) / 2
    return found


def _start(sites: Sequence[np.ndarray], clusters: int, seed: int) -> np.ndarray:
    own = [_plus_plus(points, clusters, seed) for points in sites if len(points) >= clusters]
    return own[0] if len(own) == 1 else _plus_plus(np.concatenate(own), clusters, seed)


def _plus_plus(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    with warnings.catch_warnings(
        action="ignore"
    ):  # of an empty cluster, which keeps its centre as in `_settle`
        centres: np.ndarray = kmeans2(points, clusters, minit="++", seed=seed)[0]
    return centres


def _settle(sites: Sequence[np.ndarray], centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Centres at rest, ordered, and their sum of squares; a cluster that nobody is in keeps its centre."""
    for _ in range(ITERATIONS):
        counts, sums, squares = np.zeros(len(centres)), np.zeros_like(centres), 0.0
        for points in sites:
            near = _nearness(points, centres)
            chosen = near.argmax(1)
            squares += float(np.square(points).sum() - 2 * near.max(1).sum())
            counts += np.bincount(chosen, minlength=len(centres))
            sums += np.stack([np.bincount(chosen, x, len(centres)) for x in points.T], 1)
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        still = np.abs(moved - centres).max() < STILL
        centres = moved
        if still:
            break
    order = np.argsort(-counts, kind="stable")
    return centres[order], squares

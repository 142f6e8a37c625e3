"""Bayesian optimisation with a Gaussian process, over a list of candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import norm

SCALES = (0.1, 0.2, 0.4, 0.8, 1.6)  # of the kernel, in the unit cube; the likeliest is taken
NUGGET = 1e-4  # variance added to each value, of values with variance 1
INITIAL, IMPROVEMENT, OPTIMUM = "initial", "improvement", "optimum"


@dataclass(frozen=True)
class Tried:
    """One evaluation: index of the candidate, its loss, and why it was chosen."""

    index: int
    loss: float
    why: str


def search(
    loss: Callable[[int], float],
    candidates: np.ndarray,
    initial: int,
    steps: int,
    rng: np.random.Generator,
) -> list[Tried]:
    """Look for the candidate of least loss: Algorithm 1 of glioblastoma sub-regions (BrainLes 2021).

    First `initial` of them at random; then in turns the candidate of largest expected improvement and, with its loss
    known, the one that the surrogate holds for best. Printed: RBF kernel, these two in turns. Chosen: candidates are a
    list and none is tried twice, as the loss is the same each time; the kernel's length is the likeliest of `SCALES`;
    an evaluation is a step; the end is their number, as no criterion of convergence is printed.

    Args:
        loss: of the candidate with an index, finite.
        candidates: float [n, d], brought to the unit cube here.
        initial: random evaluations, 1 or more.
        steps: evaluations after them.
        rng: of the first ones.

    Returns:
        What was tried, in order, at most n.
    """
    low, high = candidates.min(0), candidates.max(0)
    points = (candidates - low) / np.where(high > low, high - low, 1)
    first = rng.permutation(len(points))[:initial]
    tried = [Tried(int(i), loss(int(i)), INITIAL) for i in first]
    for step in range(min(steps, len(points) - len(tried))):
        known = [one.index for one in tried]
        losses = np.array([one.loss for one in tried])
        mean, deviation = surrogate(points[known], losses, points)
        if step % 2 == 0:
            score, why = expected_improvement(mean, deviation, losses.min()), IMPROVEMENT
        else:
            score, why = -mean, OPTIMUM
        score[known] = -np.inf
        best = int(score.argmax())
        tried.append(Tried(best, loss(best), why))
    return tried


def surrogate(points: np.ndarray, values: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [m] at the points `at` [m, d] of a Gaussian process through `values` [n].

    The kernel is exp(-r^2 / (2 l^2)) for values with mean 0 and variance 1, its length l the one of `SCALES` with the
    largest marginal likelihood (Rasmussen and Williams 2006, Algorithm 2.1).
    """
    middle, spread = values.mean(), values.std() or 1.0
    scaled = (values - middle) / spread
    scale = max(SCALES, key=lambda length: _likelihood(points, scaled, length))
    factor = cho_factor(_kernel(points, points, scale) + NUGGET * np.eye(len(points)))
    across = _kernel(at, points, scale)
    mean = middle + spread * (across @ cho_solve(factor, scaled))
    variance = 1 - np.einsum("ij,ji->i", across, cho_solve(factor, across.T))
    return mean, spread * np.sqrt(np.maximum(variance, 0))


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """E max(0, best - f), f normal: equation 4, whose sigma is read as the standard deviation; 0 where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (best - mean) / deviation
        found = (best - mean) * norm.cdf(z) + deviation * norm.pdf(z)
    return np.where(deviation > 0, found, 0.0)


def _kernel(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    found: np.ndarray = np.exp(-cdist(a, b, "sqeuclidean") / (2 * scale**2))
    return found


def _likelihood(points: np.ndarray, values: np.ndarray, scale: float) -> float:
    factor = cho_factor(_kernel(points, points, scale) + NUGGET * np.eye(len(points)))
    return float(-values @ cho_solve(factor, values) / 2 - np.log(np.diag(factor[0])).sum())

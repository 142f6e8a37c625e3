"""Uncertainty of a segmentation: by voxel, by case, and whether it can be believed.

All of it reads probabilities alone, so it works alike for one network, Monte Carlo passes, mirrorings and ensembles:
pass the mean over them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import xlogy

ROUNDING = 1e-3  # probabilities may lie this far outside [0, 1], as means and sums of float32 do


def case_uncertainty(probability: np.ndarray, mask: np.ndarray) -> float:
    """One minus the Dice to be expected, from the probabilities alone: 0 is sure, 1 is a sure miss.

    The truth is taken to be {p > u} for a level u that is equally likely anywhere between 0 and 1. Each voxel then
    belongs to the truth with its own probability p, and voxels of equal probability belong to it together, as those of
    a lesion do. The result is the mean over u of 1 - Dice(mask, {p > u}), exactly, with the Dice of two empty masks
    1 (BraTS).

    So an empty mask has the uncertainty max(p): a faint region of p = 0.49 that was not drawn counts 0.49, as much
    as the same region at 0.51 that was drawn. A crisp region (p near 0 or 1, mask where it is near 1) is near 0. A low
    floor of p in the background adds no more than its own height.

    Structure-wise figures that stand in for the Dice go back to Roy et al. (Bayesian QuickNAT, 2018, agreement of
    Monte Carlo samples). With voxels independent of each other instead, the expected Dice is almost
    2 sum(p in mask) / (sum(p) + voxels of the mask), the Soft Dice Confidence of Borges et al. (arXiv 2402.10665). That
    is 0 for every empty mask, and a background floor over a million voxels weighs on every small region; hence the
    levels here.

    Args:
        probability: of a region, [*S], any float dtype.
        mask: bool [*S], the voxels that were given to the region, also after post-processing.

    Raises:
        ValueError: the shapes differ, there is no voxel, or a value is no probability.
    """
    p = _checked(probability)
    if p.shape != mask.shape or not p.size:
        raise ValueError(f"probability {p.shape} and mask {mask.shape}: expected one shape with voxels")
    order = np.argsort(-p, axis=None, kind="stable")
    levels = np.concatenate([[1.0], p.ravel()[order], [0.0]])
    hits = np.concatenate([[0], np.cumsum(mask.ravel()[order])])  # of the k most probable voxels, in the mask
    both = np.arange(len(hits)) + int(np.count_nonzero(mask))
    dice = np.where(both == 0, 1.0, 2 * hits / np.maximum(both, 1))
    return float(np.clip(1 - np.dot(dice, levels[:-1] - levels[1:]), 0, 1))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in bits of "belongs to the region or not", voxel by voxel.

    Args:
        probabilities: of the regions, [R, *S].

    Returns:
        float32, the same shape; 1 at p = 0.5, 0 at p = 0 and p = 1.

    Raises:
        ValueError: a value is no probability.
    """
    p = _checked(probabilities)
    return (-(xlogy(p, p) + xlogy(1 - p, 1 - p)) / np.log(2)).astype(np.float32)


def reliability(probability: np.ndarray, truth: np.ndarray, inside: np.ndarray, bins: int = 10) -> np.ndarray:
    """How often the region is there where its probability says so; tables of several cases add up.

    Args:
        probability: of a region, [*S].
        truth: bool [*S].
        inside: bool [*S], the voxels that count, usually the brain.
        bins: of equal width; an inner edge belongs to the bin above it.

    Returns:
        float64 [bins, 3]: voxels, sum of their probability, and how many of them are truly in the region.

    Raises:
        ValueError: the shapes differ, or a value is no probability.
    """
    if not probability.shape == truth.shape == inside.shape:
        raise ValueError(f"shapes differ: {probability.shape}, {truth.shape}, {inside.shape}")
    p = _checked(probability[inside])
    place = np.minimum((p * bins).astype(int), bins - 1)
    columns = (np.ones_like(p), p, truth[inside].astype(float))
    return np.stack([np.bincount(place, column, bins) for column in columns], axis=1)


def expected_calibration_error(table: np.ndarray) -> float:
    """Mean distance between probability and frequency over the bins, weighted by voxels (Guo et al., ICML 2017).

    Most voxels of a brain are background that every network is rightly sure of, so it is small for segmentations;
    compare it between runs, and look at the bins.

    Args:
        table: result of `reliability` [bins, 3], or a sum of them.

    Raises:
        ValueError: the table holds no voxel.
    """
    voxels, predicted, observed = np.asarray(table, float).T
    if voxels.sum() <= 0:
        raise ValueError("expected_calibration_error: the table holds no voxel")
    return float(np.abs(predicted - observed).sum() / voxels.sum())


def retained(uncertainty: np.ndarray, dice: np.ndarray) -> pd.DataFrame:
    """Mean Dice of the cases that stay with the machine when the most uncertain go to a human.

    Equally uncertain cases count as in random order among themselves, so the result does not depend on the order given.

    Args:
        uncertainty: of n cases.
        dice: of the same cases.

    Returns:
        n rows. share: of the cases that are referred, 0 to (n - 1) / n; mean_score: of the others; oracle: the same if
        the worst by Dice had been referred; random: if cases had been drawn blindly, which is the mean over all.

    Raises:
        ValueError: no case, different numbers of them, or a value that is not finite.
    """
    doubt, scores = np.asarray(uncertainty, float), np.asarray(dice, float)
    if doubt.ndim != 1 or doubt.shape != scores.shape or not len(doubt):
        raise ValueError(f"expected two equally long lists of cases, got {doubt.shape} and {scores.shape}")
    if not np.isfinite([doubt, scores]).all():
        raise ValueError("uncertainty and Dice must be finite")
    table = pd.DataFrame({"doubt": doubt, "dice": scores})
    fair = table.groupby("doubt")["dice"].transform("mean").to_numpy()
    count = np.arange(len(scores), 0, -1)  # cases kept
    return pd.DataFrame(
        {
            "share": 1 - count / len(scores),
            "mean_score": (np.cumsum(fair[np.argsort(doubt, kind="stable")]) / count[::-1])[::-1],
            "oracle": (np.cumsum(np.sort(scores)[::-1]) / count[::-1])[::-1],
            "random": scores.mean(),
        }
    )


def rejection_ratio(curve: pd.DataFrame) -> float:
    """How much of the gain of a perfect order over blind choice this order has: 1 perfect, 0 blind, below 0 worse.

    The ratio of the areas between the curves, known as prediction rejection ratio.

    Args:
        curve: result of `retained`.

    Returns:
        The ratio; NaN where all cases have the same Dice, so that no order gains anything.
    """
    best = float((curve["oracle"] - curve["random"]).sum())
    gained = float((curve["mean_score"] - curve["random"]).sum())
    return gained / best if best > 1e-12 else float("nan")


def _checked(probability: np.ndarray) -> np.ndarray:
    """Probabilities as float64, rounding errors beyond 0 and 1 taken off."""
    p = np.asarray(probability, np.float64)
    if p.size and not (p.min() >= -ROUNDING and p.max() <= 1 + ROUNDING):
        raise ValueError(f"expected probabilities between 0 and 1, found {p.min():g} to {p.max():g}")
    return np.clip(p, 0, 1)

"""How sub-regions lie in a tumour: texture of a volume of labels (glioblastoma sub-regions, BrainLes 2021, Table 2)."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

NAMES = ("rmi", "entropy", "joint_energy", "imc", "lre", "sre", "non_uniformity", "rv", "re")


def label_texture(labels: np.ndarray, clusters: int) -> np.ndarray:
    """The nine features `NAMES`, float64 [9], of labels 1 to `clusters` [X, Y, Z]; 0 is outside.

    Grey levels are names here, so only what does not reckon with them is left: of the co-occurrence matrix relative
    mutual information, joint energy and the informational measure of correlation, of the run-length matrix long and
    short run emphasis, non-uniformity, variance and entropy of runs, and the entropy of the labels. Table 2 but where
    its print cannot be meant, and then PyRadiomics (van Griethuysen et al. 2017), from which it is taken: run emphases
    without a square on p, non-uniformity with one on the sum over j, the mean run length a sum over j and not i.

    Chosen: both matrices are summed over the three axes, as no angles are printed, at a distance of one voxel, with
    pairs counted both ways. RMI and IMC then are one number with two signs, whatever the angles' number; both are kept
    as printed.

    Raises:
        ValueError: no label above 0.
    """
    inside = labels[labels > 0]
    if not inside.size:
        raise ValueError("no voxel has a label, expected sub-regions of a tumour")
    pairs = np.zeros((clusters, clusters))
    values, lengths = [], []
    for axis in range(3):
        lines = np.moveaxis(labels, axis, -1)
        here, there = lines[..., :-1], lines[..., 1:]
        both = (here > 0) & (there > 0)
        each = (here[both].astype(int) - 1) * clusters + there[both].astype(int) - 1
        pairs += np.bincount(each, minlength=clusters**2).reshape(clusters, clusters)
        found = _runs(lines)
        values.append(found[0])
        lengths.append(found[1])
    shares = np.bincount(inside.astype(int))[1:] / inside.size
    among = _of_pairs(pairs + pairs.T)
    runs = _of_runs(np.concatenate(values), np.concatenate(lengths))
    return np.array([among[0], _entropy(shares), *among[1:], *runs])


def _entropy(p: np.ndarray) -> float:
    return float(-xlogy(p, p).sum() / np.log(2))


def _of_pairs(counts: np.ndarray) -> tuple[float, float, float]:
    """Relative mutual information, joint energy, informational measure of correlation."""
    if not counts.any():  # no two voxels touch
        return 0.0, 1.0, 0.0
    p = counts / counts.sum()
    alone, joint = _entropy(p.sum(0)), _entropy(p)
    relative = (2 * alone - joint) / alone if alone > 0 else 0.0
    return relative, float(np.square(p).sum()), -relative


def _runs(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label and length of every run along the last axis."""
    ends = np.zeros((*lines.shape[:-1], 1), lines.dtype)  # no run goes on in the next line
    flat = np.concatenate([lines, ends], -1).ravel().astype(int)
    begins = np.flatnonzero(np.diff(flat, prepend=-1))
    lengths = np.diff(begins, append=flat.size)
    inside = flat[begins] > 0
    return flat[begins][inside], lengths[inside]


def _of_runs(values: np.ndarray, lengths: np.ndarray) -> tuple[float, float, float, float, float]:
    """Long and short run emphasis, non-uniformity, variance and entropy of runs."""
    number = len(values)
    kinds = np.unique(np.stack([values, lengths]), axis=1, return_counts=True)[1] / number
    uneven = np.square(np.bincount(values)).sum() / number**2
    long, short = np.square(lengths).mean(), (1 / np.square(lengths)).mean()
    return float(long), float(short), float(uneven), float(lengths.var()), _entropy(kinds)

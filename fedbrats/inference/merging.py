"""Merging of supervoxels that look alike, until what is left are the objects of the image.

"Multimodal supervoxel merging" (BrainLes 2021), section 3.2. Supervoxels that touch are joined by an edge of weight
(equation 2)

    w = exp(-((alpha Dc + beta Dt) / (alpha + beta))^2 / gamma)

with the difference Dc of their mean intensities (equation 3) and Dt of their histograms (equation 4), both from 0 to 1.
Each supervoxel points at the neighbour that is most like it; those that are joined in this graph of nearest neighbours
become one, their means and histograms are worked out anew, and so on. Printed: alpha, beta, gamma = 0.5, 0.1, 0.1.

Where the print is at odds with itself or silent:

- w is called a dissimilarity, and edges below T are merged; by equation 2 it is 1 for supervoxels that are the same.
  Here it is what the equation says, a likeness, and edges *above* T are merged.
- T (equation 5) is the mean over the supervoxels of the least of their edges less the standard deviation of these. It
  is "a given threshold", so it is worked out once, on the oversegmentation.
- The texture of equation 4 has "32 bins, 8 angles, bin size 10" and a citation, and no 3D form. Here a histogram of
  each modality has 32 bins of its intensities, and beside them for each of 8 directions in the axial plane 10 bins of
  the derivative along it (Gaussian, sigma 1, its positive part, from 0 to 1 over the image), as in selective search,
  from which such a texture comes. A distance is the mean of the 9 Manhattan distances, halved, so that 1 is disjoint.
- Dc is divided by the root of the number of modalities, so that 1 is black against white in all of them; Dt alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fedbrats.inference.supervoxels import borders, means, renumbered

ALPHA, BETA, GAMMA = 0.5, 0.1, 0.1
BINS, ANGLES, STEPS, SIGMA = (
    32,
    8,
    10,
    1.0,
)  # of intensities; directions, bins of each, width of the derivative


@dataclass(frozen=True)
class Looks:
    """What supervoxels look like: sums over their voxels, so that those of a union are sums of both.

    sizes: voxels [n + 1]; intensities: [n + 1, M]; histograms: counts [n + 1, M, BINS + ANGLES * STEPS].
    """

    sizes: np.ndarray
    intensities: np.ndarray
    histograms: np.ndarray

    def joined(self, target: np.ndarray) -> Looks:
        """Those of the regions that `target` [n + 1] makes of these."""
        count = int(target.max()) + 1
        flat = self.histograms.reshape(len(self.sizes), -1)
        return Looks(
            np.bincount(target, self.sizes, count),
            means(target, self.intensities, count),
            means(target, flat, count).reshape(count, *self.histograms.shape[1:]),
        )


def looks_of(image: np.ndarray, labels: np.ndarray) -> Looks:
    """Looks of the supervoxels `labels` (int [X, Y, Z], 0 is none) of `image` (float [M, X, Y, Z], from 0 to 1)."""
    mask = labels > 0
    owner, count = labels[mask], int(labels.max()) + 1
    values = image[:, mask].T
    histograms = [
        np.concatenate(
            [_counts(owner, channel[mask], BINS, count)]
            + [_counts(owner, along[mask], STEPS, count) for along in _derivatives(channel)],
            axis=1,
        )
        for channel in image
    ]
    return Looks(
        np.bincount(owner, minlength=count).astype(float),
        means(owner, values, count),
        np.stack(histograms, axis=1),
    )


def _derivatives(channel: np.ndarray) -> list[np.ndarray]:
    """Positive part of the derivative along each direction of the axial plane, from 0 to 1 over the volume."""
    across, along = (ndimage.gaussian_filter(channel, SIGMA, order=o) for o in ((1, 0, 0), (0, 1, 0)))
    turns = 2 * np.pi * np.arange(ANGLES) / ANGLES
    found = [np.maximum(np.cos(turn) * across + np.sin(turn) * along, 0) for turn in turns]
    return [one / (one.max() or 1) for one in found]


def _counts(owner: np.ndarray, values: np.ndarray, bins: int, count: int) -> np.ndarray:
    """Histograms of `values` in [0, 1] by owner, [count, bins]."""
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    return np.bincount(owner * bins + place, minlength=count * bins).reshape(count, bins)


def likeness(
    looks: Looks,
    first: np.ndarray,
    second: np.ndarray,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
) -> np.ndarray:
    """w of equation 2 for pairs of supervoxels, float64 in (0, 1], 1 for those that look the same."""
    sizes = np.maximum(looks.sizes, 1)
    mean = looks.intensities / sizes[:, None]
    colour = np.sqrt(np.square(mean[first] - mean[second]).mean(axis=1))
    shares = looks.histograms / sizes[:, None, None]
    manhattan = np.abs(shares[first] - shares[second]).sum(axis=2) / (2 * (1 + ANGLES))
    texture = np.sqrt(manhattan.mean(axis=1))
    return np.exp(-np.square((alpha * colour + beta * texture) / (alpha + beta)) / gamma)


def threshold(count: int, first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """T of equation 5 of supervoxels 1 to `count`: mean over those with edges of the least weight less the spread."""
    ends, weight = np.concatenate([first, second]), np.concatenate([weights, weights])
    least = np.full(count + 1, np.inf)
    np.minimum.at(least, ends, weight)
    degree = np.bincount(ends, minlength=count + 1)
    some = degree > 0
    mean = np.bincount(ends, weight, count + 1)[some] / degree[some]
    centred = weight - np.divide(np.bincount(ends, weight, count + 1), np.maximum(degree, 1))[ends]
    spread = np.sqrt(np.bincount(ends, centred**2, count + 1)[some] / degree[some])
    return float(np.mean(least[some] - spread)) if len(mean) else 0.0


def merge(
    image: np.ndarray,
    labels: np.ndarray,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
) -> np.ndarray:
    """Merge supervoxels that look alike.

    Args:
        image: float [M, X, Y, Z], each modality from 0 to 1.
        labels: supervoxels, int [X, Y, Z], 0 for voxels of none, else from 1 without a gap.
        alpha: weight of the intensities.
        beta: weight of the histograms.
        gamma: how fast likeness falls.

    Returns:
        int32 [X, Y, Z]: the merged ones, numbered from 1 without a gap.
    """
    looks, merged, least = looks_of(image, labels), labels.astype(np.int32), None
    while True:
        first, second, _ = borders(merged)
        weights = likeness(looks, first, second, alpha, beta, gamma)
        count = int(merged.max())
        least = threshold(count, first, second, weights) if least is None else least
        target = _joined(count, first, second, weights, least)
        if np.array_equal(target, np.arange(count + 1)):
            return merged
        merged, looks = target[merged], looks.joined(target)


def _joined(
    count: int, first: np.ndarray, second: np.ndarray, weights: np.ndarray, least: float
) -> np.ndarray:
    """New number of each supervoxel: those joined by edges above `least` in the nearest-neighbour graph have one.

    A graph of nearest neighbours has no circle, so its components are those that Kruskal's algorithm grows.
    """
    one, other = np.concatenate([first, second]), np.concatenate([second, first])
    weight = np.concatenate([weights, weights])
    order = np.lexsort((other, -weight, one))
    nodes, place = np.unique(one[order], return_index=True)
    best = order[place]
    kept = weight[best] > least
    graph = coo_array(
        (np.ones(int(kept.sum()), bool), (nodes[kept], other[best][kept])), shape=(count + 1, count + 1)
    )
    _, component = connected_components(graph, directed=False)
    # Numbers by their smallest member, so that nothing depends on the order in which the library finds them.
    smallest = np.full(component.max() + 1, count + 1)
    np.minimum.at(smallest, component, np.arange(count + 1))
    return renumbered(smallest[component])

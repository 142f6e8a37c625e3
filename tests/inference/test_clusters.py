"""K-means over sites against SciPy's in one place, and the disagreement of two clusterings by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from fedbrats.inference import clusters
from fedbrats.inference.clusters import disagreement, federated_kmeans, nearest

PLACES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def blobs(sizes: tuple[int, ...], seed: int, spread: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(place, spread, (n, 2)) for place, n in zip(PLACES, sizes)])


def test_three_blobs_spread_over_sites_are_found_the_largest_first() -> None:
    sites = [blobs((30, 5, 0), 0), blobs((0, 10, 60), 1), np.empty((0, 2))]  # none of them has seen it all
    found = federated_kmeans(sites, 3, 0)
    np.testing.assert_allclose(found, PLACES[[2, 0, 1]], atol=0.05)
    np.testing.assert_array_equal(found, federated_kmeans(sites, 3, 0))


def test_iterations_are_those_of_all_points_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs((40, 40, 40), 2, 0.5)  # they run into each other, so that centres travel
    start = points[:3].copy()
    expected, chosen = kmeans2(points, start, iter=100, minit="matrix")
    monkeypatch.setattr(clusters, "_start", lambda *_: start)
    monkeypatch.setattr(clusters, "STILL", 0.0)
    found = federated_kmeans([points[:17], points[17:]], 3, 0)
    order = np.argsort(-np.bincount(chosen), kind="stable")
    np.testing.assert_allclose(found, expected[order], atol=1e-9)
    np.testing.assert_array_equal(nearest(points, found), np.argsort(order)[chosen])


def test_of_several_starts_the_least_squares_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
    starts = iter(
        [np.array([[0.0], [0.1], [7.0]]), np.array([[0.0], [5.0], [9.0]]), np.array([[2.5], [9.0], [9.1]])]
    )
    monkeypatch.setattr(clusters, "_start", lambda *_: next(starts))
    np.testing.assert_allclose(sorted(federated_kmeans([points], 3, 0)[:, 0]), [0.05, 5.05, 9.05])


def test_disagreement_by_hand() -> None:
    points = np.array([[0.0], [0.2], [0.9], [1.0]])
    first, second = np.array([[0.0], [1.0]]), np.array([[1.1], [0.1]])
    assert disagreement(first, second, [points]) == 0  # only the names differ
    shifted = np.array([[0.0], [2.0]])  # between them, at 1.0, the first of two as near: all four are of one
    assert disagreement(first, shifted, [points[:1], points[1:]]) == 0.5
    with pytest.raises(ValueError, match="no voxel"):
        disagreement(first, second, [points[:0]])


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="clusters=3: no site has as many"):
        federated_kmeans([PLACES[:2], PLACES[:1]], 3, 0)

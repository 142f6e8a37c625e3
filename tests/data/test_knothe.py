"""The rearrangement by hand: boxes whose volumes are masses, both ways."""

from __future__ import annotations

import numpy as np

from fedbrats.data.knothe import Rearranged


def test_boxes_by_hand() -> None:
    """Masses 1, 3 | 4, 0 in two slabs: halves along x; a quarter and the rest along y; all of it, then nothing."""
    one = Rearranged(np.array([[1.0, 3.0], [4.0, 0.0]])[..., None])
    assert one.slabs.tolist() == [0, 0.5, 1]
    assert one.rows.tolist() == [[0, 0.25, 1], [0, 1, 1]]
    middles = one.forward(np.array([[0.5, 0.5, 1.5], [0.5, 1.5, 0.5], [0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(middles, [[0.25, 0.25, 0.75], [0.125, 0.625, 0.5], [0.5, 0.5, 0.5]])
    points = np.array([[0.1, 0.3, 0.9, 1.0], [0.2, 0.5, 0.99, 1.0], [0.5, 0.5, 0.5, 1.0]])
    found = one.origins(points)
    assert np.floor(found[:2]).T.tolist() == [[0, 0], [0, 1], [1, 0], [1, 0]]  # never in what has no mass
    np.testing.assert_allclose(found[:, 0], [0.2, 0.8, 0.5])


def test_every_voxel_has_the_volume_of_its_mass_and_the_way_back_is_exact() -> None:
    rng = np.random.default_rng(0)
    mass = rng.random((5, 4, 6)) * (rng.random((5, 4, 6)) > 0.4)
    one = Rearranged(mass)
    volume = (
        np.diff(one.slabs)[:, None, None] * np.diff(one.rows)[..., None] * np.diff(one.ends)
    )  # of each box, by its edges
    np.testing.assert_allclose(volume, mass / mass.sum(), atol=1e-15)
    points = rng.random((3, 1000)) * 0.999
    np.testing.assert_allclose(one.forward(one.origins(points)), points, atol=1e-7)

"""The flow by hand: gradients have nothing to turn, a swirl is all turning, volumes stay, a turned cube turns back."""

from __future__ import annotations

import numpy as np

from fedbrats.data.rearranging import at_nodes, carried, grid, rearrange, turning_of, volumes

N = 16
MIDDLES = grid((np.arange(N) + 0.5) / N)
SWIRL = np.stack(  # curl of sin(pi x) sin(pi y): no divergence, along the faces
    [
        np.sin(np.pi * MIDDLES[0]) * np.cos(np.pi * MIDDLES[1]),
        -np.cos(np.pi * MIDDLES[0]) * np.sin(np.pi * MIDDLES[1]),
        np.zeros_like(MIDDLES[0]),
    ]
)


def test_a_gradient_has_no_turning_and_a_swirl_is_nothing_else() -> None:
    x, y, _ = np.pi * MIDDLES
    gradient = np.stack([np.sin(x) * np.cos(2 * y), 2 * np.cos(x) * np.sin(2 * y), np.zeros_like(x)])
    np.testing.assert_allclose(turning_of(gradient), 0, atol=1e-12)
    np.testing.assert_allclose(turning_of(SWIRL + gradient), SWIRL, atol=1e-12)


def test_points_go_along_the_swirl_and_stay_on_the_faces() -> None:
    """At (1/2, y) the swirl is (cos(pi y), 0): a short step is that long; between its points it is linear."""
    point = np.array([[0.5, 0.0, 1.0], [0.25, 0.3, 1.0], [0.5, 0.5, 0.5]])
    moved = carried(SWIRL, point, 1e-3)
    np.testing.assert_allclose(
        moved[:, 0] - point[:, 0], [1e-3 * np.cos(np.pi / 4), 0, 0], rtol=0.01, atol=3e-6
    )
    assert moved[0, 1:].tolist() == [0.0, 1.0]  # does not leave x = 0 and x = 1


def test_volumes_of_cells_by_hand() -> None:
    nodes = grid(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(volumes(nodes), 1 / 8)
    nodes[0] = nodes[0] ** 2  # cells end at 1/4 and 1
    np.testing.assert_allclose(volumes(nodes)[:, 0, 0], [1 / 16, 3 / 16])
    np.testing.assert_allclose(at_nodes(nodes, np.array([[0.75], [0.5], [0.1]])).ravel(), [0.625, 0.5, 0.1])


def test_a_cube_that_was_stirred_is_stirred_back() -> None:
    """T moves along the swirl: it keeps volume and is no gradient; an optimal map of the cube to itself stays."""
    found = rearrange(lambda points: carried(SWIRL, points, 0.15), N, 20)
    first, last = found.costs
    assert found.taken > 0
    assert last < 0.05 * first  # the least is 0
    assert found.turning < 0.25
    assert found.volume_error < 0.01
    points = np.random.default_rng(0).random((3, 500))
    np.testing.assert_allclose(found.forward(found.inverse(points)), points, atol=0.1 / N)


def test_an_optimal_map_is_left_as_it_is() -> None:
    found = rearrange(lambda points: 0.3 + 2 * points, N, 20)
    assert (found.taken, found.turning, found.volume_error) == (0, 0.0, 0.0)
    points = np.random.default_rng(0).random((3, 5))
    assert found.forward(points) is points

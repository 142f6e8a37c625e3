"""Flow of a cube into itself that keeps every volume and lowers the cost of a transport map.

A map T of the unit cube onto a brain that pushes volume to mass still does so after any rearrangement s of the cube
that keeps volume: T(s^-1). Its cost |T - y|^2 is least where T is a gradient (Brenier); what T has beside a gradient is
a field without divergence that runs along the faces, and to move the cube's points along that field lowers the cost
(Angenent, Haker and Tannenbaum, "Minimizing flows for the Monge-Kantorovich problem", SIAM J. Math. Anal. 2003). In a
cube the two parts are told apart by sine and cosine series, a handful of transforms and no linear system.

Between the points of the grid the field is interpolated, so volumes drift; after the last step what they have become is
set right by a Knothe-Rosenblatt rearrangement of the cube's cells, close to the identity (the projection of a projected
gradient method).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import dct, dst, idct, idst
from scipy.ndimage import map_coordinates

from fedbrats.data.knothe import Rearranged

MOST = 48  # points along a side of the grid on which the field is worked out
SMOOTH = 3.0  # standard deviation in steps of the grid: with 2.0 volumes drift past mending
FURTHEST = 1.0  # steps of the grid that a point moves at once
LEAST_STEP = 1 / 64  # below it the line search has found the end
LEAST_VOLUME = 1e-3  # share of what a cell had, where the flow has turned one over
ENOUGH = 1e-6  # field (root mean square, of a unit cube) that is none

Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rearrangement:
    """Of the unit cube, on its (n + 1)^3 nodes, faces included; between them linear.

    ahead: where the flow takes a point, float64 [3, n + 1, n + 1, n + 1]; back: where it came from, alike; projection:
    what sets the volumes right. taken: steps. costs: mean |T - y|^2 of the cube before and after; turning: of what T
    has beside a gradient, what is left (root mean square, 1 = all, 0 = an optimal map); drift: largest relative change
    of the volume of a cell of that grid before the projection.
    """

    ahead: np.ndarray
    back: np.ndarray
    projection: Rearranged
    taken: int
    costs: tuple[float, float]
    turning: float
    drift: float

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Where points [3, n] of the unit cube go."""
        if not self.taken:
            return points
        size = self.ahead.shape[1] - 1
        return self.projection.forward(_inside(at_nodes(self.ahead, points)) * size)

    def inverse(self, points: np.ndarray) -> np.ndarray:
        """Where points [3, n] of the unit cube came from."""
        if not self.taken:
            return points
        size = self.ahead.shape[1] - 1
        return _inside(at_nodes(self.back, self.projection.origins(points) / size))

    @property
    def volume_error(self) -> float:
        """Largest relative error of the volume that ends in a cell of the grid."""
        if not self.taken:
            return 0.0
        size = self.ahead.shape[1] - 1
        nodes = grid(np.linspace(0, 1, size + 1))
        came = self.inverse(nodes.reshape(3, -1)).reshape(nodes.shape)
        return float(np.abs(volumes(came) * size**3 - 1).max())


def rearrange(target: Map, size: int, steps: int) -> Rearrangement:
    """Lower the cost of a map by `steps` steps along its divergence-free part, fewer if the line search ends.

    Args:
        target: T, points [3, n] of the unit cube to points [3, n].
        size: points along a side of the grid, 2 or more.
        steps: at most; 0 leaves the map as it is.
    """
    middles = grid((np.arange(size) + 0.5) / size)
    nodes = grid(np.linspace(0, 1, size + 1))
    came, values = nodes.copy(), target(middles.reshape(3, -1)).reshape(middles.shape)
    costs, fields = [_cost(values, middles)], list[tuple[float, np.ndarray]]()
    field = first = turning_of(values)
    while len(fields) < steps and _rms(field) > ENOUGH:
        moved = _search(target, smoothed(field), came, middles, costs[-1])
        if moved is None:
            break
        step, came, values, cost = moved
        fields.append((step, smoothed(field)))
        costs.append(cost)
        field = turning_of(values)
    # Anew through all steps: the one that led them was interpolated at each of them.
    ahead, back = nodes, nodes
    for step, velocity in fields:
        ahead = carried(velocity, ahead, step)
    for step, velocity in reversed(fields):
        back = carried(velocity, back, -step)
    became = volumes(back)
    one = Rearrangement(
        ahead,
        back,
        Rearranged(np.maximum(became, LEAST_VOLUME / size**3)),
        len(fields),
        (costs[0], costs[-1]),
        0.0 if _rms(first) <= ENOUGH else 1.0,
        float(np.abs(became * size**3 - 1).max()),
    )
    if not fields:
        return one
    values = target(one.inverse(middles.reshape(3, -1))).reshape(middles.shape)
    left = _rms(turning_of(values)) / _rms(first)
    return replace(one, costs=(costs[0], _cost(values, middles)), turning=left)


def _search(
    target: Map, velocity: np.ndarray, came: np.ndarray, middles: np.ndarray, before: float
) -> tuple[float, np.ndarray, np.ndarray, float] | None:
    """The first of steps that are halved that lowers the cost: step, nodes' origins, T at the middles, cost."""
    size = middles.shape[1]
    step = min(1.0, FURTHEST / size / max(float(np.abs(velocity).max()), 1e-12))
    while step >= LEAST_STEP:
        origin = _inside(at_nodes(came, carried(velocity, middles, -step)))
        values = target(origin.reshape(3, -1)).reshape(middles.shape)
        if (cost := _cost(values, middles)) < before:
            nodes = grid(np.linspace(0, 1, size + 1))
            return step, _inside(at_nodes(came, carried(velocity, nodes, -step))), values, cost
        step /= 2
    return None


def turning_of(values: np.ndarray) -> np.ndarray:
    """The part of a field [3, n, n, n] at the middles of a grid that is no gradient.

    It has no divergence and does not cross the faces: its component along an axis is a sine series of that axis and a
    cosine series of the others, orthogonal to every gradient of a cosine series.
    """
    size = values.shape[1]
    waves = np.pi * np.arange(size)
    along = np.stack(np.meshgrid(waves, waves, waves, indexing="ij"))
    series = np.stack([_series(values[axis], axis) for axis in range(3)])
    square = (along**2).sum(0)
    square[0, 0, 0] = 1
    potential = (along * series).sum(0) / square
    return np.stack([_sum(series[axis] - along[axis] * potential, axis) for axis in range(3)])


def smoothed(field: np.ndarray) -> np.ndarray:
    """A field of `turning_of`, its short waves damped; still without divergence."""
    size = field.shape[1]
    damp = np.exp(-0.5 * (SMOOTH * np.pi * np.arange(size) / size) ** 2)
    weights = damp[:, None, None] * damp[:, None] * damp
    return np.stack([_sum(_series(field[axis], axis) * weights, axis) for axis in range(3)])


def _series(values: np.ndarray, axis: int) -> np.ndarray:
    """Coefficients at 0, pi, 2 pi, ...: of sines along `axis` (none at 0), of cosines along the others."""
    for other in range(3):
        if other != axis:
            values = dct(values, axis=other, norm="ortho")
    sines = np.roll(dst(values, axis=axis, norm="ortho"), 1, axis)
    sines[(slice(None),) * axis + (0,)] = 0  # the last of the sines, beyond the cosines' last
    return np.asarray(sines)


def _sum(coefficients: np.ndarray, axis: int) -> np.ndarray:
    for other in range(3):
        if other != axis:
            coefficients = idct(coefficients, axis=other, norm="ortho")
    return np.asarray(idst(np.roll(coefficients, -1, axis), axis=axis, norm="ortho"))


def carried(velocity: np.ndarray, points: np.ndarray, step: float) -> np.ndarray:
    """Points [3, ...] after `step` along a field at the middles of a grid (fourth order Runge-Kutta)."""
    padded = [np.pad(part, 1, mode="symmetric") for part in velocity]
    for axis, part in enumerate(padded):  # nothing crosses a face
        part[(slice(None),) * axis + (0,)] *= -1
        part[(slice(None),) * axis + (-1,)] *= -1
    size = velocity.shape[1]

    def at(places: np.ndarray) -> np.ndarray:
        where = _inside(places) * size + 0.5
        return np.stack([map_coordinates(part, where, order=1) for part in padded])

    one = at(points)
    two = at(points + step / 2 * one)
    three = at(points + step / 2 * two)
    four = at(points + step * three)
    return _inside(points + step / 6 * (one + 2 * two + 2 * three + four))


def at_nodes(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values [3, n + 1, n + 1, n + 1] at the nodes of the unit cube, linear at points [3, ...] of it."""
    where = points * (values.shape[1] - 1)
    return np.stack([map_coordinates(part, where, order=1, mode="nearest") for part in values])


def volumes(nodes: np.ndarray) -> np.ndarray:
    """Volume of each cell between mapped nodes [3, n + 1, ...], by its mean edges along the three axes."""
    edges = []
    for axis in range(1, 4):
        edge = np.diff(nodes, axis=axis)
        for other in {1, 2, 3} - {axis}:
            front = [slice(None)] * 4
            front[other] = slice(1, None)
            rear = list(front)
            rear[other] = slice(None, -1)
            edge = (edge[tuple(front)] + edge[tuple(rear)]) / 2
        edges.append(edge)
    return np.asarray((edges[0] * np.cross(edges[1], edges[2], axis=0)).sum(0))


def grid(along: np.ndarray) -> np.ndarray:
    """Points [3, n, n, n] whose coordinates are `along` on each axis."""
    return np.stack(np.meshgrid(along, along, along, indexing="ij"))


def _inside(points: np.ndarray) -> np.ndarray:
    return np.clip(points, 0, 1)


def _cost(values: np.ndarray, places: np.ndarray) -> float:
    return float(((values - places) ** 2).sum(0).mean())


def _rms(field: np.ndarray) -> float:
    return float(np.sqrt((field**2).sum(0).mean()))

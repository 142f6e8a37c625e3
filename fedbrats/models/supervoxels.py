"""Supervoxels within a network: SLIC on a fixed grid of seeds, which of them touch, and their intensities.

SLIC (Achanta et al., TPAMI 2012) as `inference.supervoxels` has it with the same compactness everywhere, in torch, so
that it runs where the network does. A voxel belongs to one of the 27 seeds of the cells around its own. So their number
is that of the cells, every array has a shape that follows from the sides of the patch, and a batch, a graph for export
and the meta device take it. Unlike there, a supervoxel may be of several pieces: to find pieces takes a loop whose
length depends on the image.

Supervoxels are numbered in the order of their cells; `count` of them, some without a voxel. Number `count` is no
supervoxel, but all that is outside of the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
REACH = 2  # cells between two supervoxels that can be neighbours, along an axis
NEIGHBOURS = 32  # of a supervoxel at most
FAR = 1e6  # of every coordinate of a seed that has no voxel


def around(grid: Sequence[int], reach: int, device: torch.device) -> Tensor:
    """Numbers of the (2 reach + 1)^3 cells around every cell of a `grid`, int64 [count, K]; `count` beyond its end."""
    places = torch.cartesian_prod(*(torch.arange(side, device=device) for side in grid))
    steps = torch.tensor(list(product(range(-reach, reach + 1), repeat=3)), device=device)
    sides = torch.tensor(list(grid), device=device)
    near = places[:, None] + steps
    inside = ((near >= 0) & (near < sides)).all(-1)
    return torch.where(inside, _number(near, grid), prod(grid))


def supervoxels(images: Tensor, brain: Tensor, cell: int, compactness: float, rounds: int) -> Tensor:
    """The supervoxel of every voxel, int64 [B, X, Y, Z].

    Args:
        images: float32 [B, C, X, Y, Z], sides multiples of `cell`.
        brain: bool [B, X, Y, Z]; only its voxels move seeds.
        cell: voxels between two seeds.
        compactness: how much a distance of one cell counts, in the unit of the intensities.
        rounds: of assignment.
    """
    sides = images.shape[2:]
    grid = [side // cell for side in sides]
    count, near = prod(grid), around(grid, 1, images.device)
    lines = [torch.arange(side, device=images.device) for side in sides]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij")) * (compactness / cell)
    # In float64, as distances come from differences of squares, and because autocast leaves it as it is.
    points = torch.cat([images, places.expand(len(images), -1, -1, -1, -1)], 1).double()
    points = _in_cells(points, cell)
    with_one = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    outside = ~_in_cells(brain[:, None], cell).squeeze(-1)
    owner = torch.arange(count, device=images.device)[None, :, None].expand(outside.shape)
    owner = owner.masked_fill(outside, count)
    for _ in range(rounds):
        seeds = _means(points, owner, count)[:, near]
        # Squared, without what is the same for all seeds of a voxel, in one product.
        seeds = torch.cat([-2 * seeds, seeds.square().sum(-1, keepdim=True)], -1)
        distances = with_one @ seeds.mT
        nearest = near.expand(len(images), -1, -1).gather(2, distances.argmin(-1))
        owner = nearest.masked_fill(outside, count)
    return _from_cells(owner, grid, cell)


def neighbours(owner: Tensor, grid: Sequence[int]) -> Tensor:
    """Numbers of the supervoxels that share a face with each, int64 [B, count, NEIGHBOURS]; `count` where no more do.

    `owner` is what `supervoxels` gives on a `grid` of cells. Two whose cells are more than `REACH` apart, which can
    touch as well, do not count, and of more than `NEIGHBOURS` the first.
    """
    count, side = prod(grid), 2 * REACH + 1
    near = around(grid, REACH, owner.device).expand(len(owner), -1, -1)
    touch = owner.new_zeros(len(owner), count * side**3 + 1, dtype=torch.uint8)
    for axis in (1, 2, 3):
        faces = owner.shape[axis] - 1
        one, other = (owner.narrow(axis, start, faces).flatten(1) for start in (0, 1))
        step = _place(other, grid) - _place(one, grid)
        found = (step.abs() <= REACH).all(-1) & (one != other) & (one < count) & (other < count)
        for first, way in ((one, step), (other, -step)):
            slot = first * side**3 + _number(way + REACH, (side,) * 3)
            touch.scatter_(1, torch.where(found, slot, count * side**3), 1)
    touch = touch[:, :-1].unflatten(1, (count, side**3))
    slots = touch.argsort(dim=-1, descending=True, stable=True)[..., :NEIGHBOURS]
    return torch.where(touch.gather(2, slots) > 0, near.gather(2, slots), count)


def quantiles(images: Tensor, owner: Tensor, count: int) -> Tensor:
    """Intensities of every supervoxel at `QUANTILES` of its voxels, [B, count, C * 5], modality by modality.

    The voxel of the nearest rank; those of a supervoxel without a voxel mean nothing.

    Args:
        images: float [B, C, X, Y, Z].
        owner: of `supervoxels`.
        count: number of supervoxels.
    """
    values, owner = images.flatten(2), owner.flatten(1)
    with torch.no_grad():
        order = values.argsort(dim=-1, stable=True)
        owners = owner[:, None].expand_as(values).gather(-1, order)
        order = order.gather(-1, owners.argsort(dim=-1, stable=True))  # by supervoxel, within it by intensity
        sizes = _sums(torch.ones_like(owner)[..., None], owner, count)[:, :count, 0]
        rank = (sizes - 1).clamp_min(0)[..., None] * torch.tensor(QUANTILES, device=images.device)
        ranks = (sizes.cumsum(1) - sizes)[..., None] + rank.round().long()
        ranks = ranks.clamp_max(values.shape[2] - 1).flatten(1)[:, None].expand(-1, values.shape[1], -1)
        picked = order.gather(-1, ranks)
    found = values.gather(-1, picked).unflatten(-1, (count, len(QUANTILES)))
    return found.transpose(1, 2).flatten(2)


def _number(places: Tensor, grid: Sequence[int]) -> Tensor:
    """Number of the cell at `places` [..., 3]."""
    return (places[..., 0] * grid[1] + places[..., 1]) * grid[2] + places[..., 2]


def _place(numbers: Tensor, grid: Sequence[int]) -> Tensor:
    """Where the cells with `numbers` [...] are, [..., 3]."""
    plane = grid[1] * grid[2]
    return torch.stack([numbers // plane, numbers // grid[2] % grid[1], numbers % grid[2]], -1)


def _in_cells(volume: Tensor, cell: int) -> Tensor:
    """[B, C, X, Y, Z] to the voxels of every cell, [B, count, cell^3, C]."""
    batch, channels, *sides = volume.shape
    split = volume.reshape(batch, channels, *(n for side in sides for n in (side // cell, cell)))
    return split.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, -1, cell**3, channels)


def _from_cells(values: Tensor, grid: Sequence[int], cell: int) -> Tensor:
    """[B, count, cell^3] to the volume [B, X, Y, Z]."""
    split = values.reshape(len(values), *grid, cell, cell, cell).permute(0, 1, 4, 2, 5, 3, 6)
    return split.reshape(len(values), *(side * cell for side in grid))


def _sums(columns: Tensor, owner: Tensor, count: int) -> Tensor:
    """Sums of `columns` [B, n, k] over the voxels of each owner [B, n], [B, count + 1, k]."""
    total = columns.new_zeros(len(columns), count + 1, columns.shape[2])
    return total.scatter_add(1, owner[..., None].expand(columns.shape), columns)


def _means(points: Tensor, owner: Tensor, count: int) -> Tensor:
    """Mean of the points of each supervoxel, [B, count + 1, k]; `FAR` where there are none."""
    columns, owner = points.flatten(1, 2), owner.flatten(1)
    sizes = _sums(torch.ones_like(columns[..., :1]), owner, count)
    found = (_sums(columns, owner, count) / sizes.clamp_min(1)).masked_fill(sizes == 0, FAR)
    found[:, count] = FAR  # outside of the brain
    return found

"""A brain becomes a cube: a map that gives every voxel the share of the cube that its mass is of all mass.

"Two-phase optimal mass transportation" (Lin et al., BrainLes 2021): the irregular brain M, of mass 1, goes to the unit
cube of density 1 by a map f with rho(t) |t| = |f(t)| for every cell t (equation 2) whose cost
c(f) = sum |v - f(v)|^2 m(v) is least (equation 3). The density is rho = exp(I), I the FLAIR grayscale from 0 to 1
(equation 6); in the second phase it is that within 5 voxels of the tumour and 1 elsewhere (equation 7).

What is other than printed, and why:

- There, M is a mesh of tetrahedra and f is found by projected gradients, each projection (VSEM) a series of sparse
  linear systems of some million unknowns, from a map of the surface that is fixed. Nothing of it is published. Here
  the cells are the voxels, and f is the *Knothe-Rosenblatt rearrangement* (monotone along x, then along y in each slab
  of x, then along z in each row) followed by a *flow of the cube* that keeps volume and lowers the cost
  (`knothe.py`, `rearranging.py`). The rearrangement alone fulfils equation 2 to rounding, each voxel is a box in the
  cube; the flow bends these boxes and loses `mass_error`. Without a mesh there is no map of the surface to keep fixed.
- The result is not proved to be optimal: `turning` says how much of what parts it from an optimal map is left. The
  rearrangement breaks between slabs of different outline, which the flow does not mend.
- "(grayscale - mean) / variance with a suitable shift and scaling", from 0 to 1, is (I - min) / (max - min), here over
  the brain. With that, equation 7 can at most make of a share a of the brain e a / (1 - a + e a) of the cube, 15.9 %
  of 6.49 %, not the 20.28 % of Table 2 (whose text names an "enhanced histogram equalization" that the method lacks).
  `exponent`, printed as 1, is for that.
- M has a boundary of genus zero there; here it is every voxel that is not 0 in some modality, and the holes in it.
- Lengths are such that the brain has volume 1; its centre of mass lies in the middle of the cube.
- A cell of the cube has the value of the voxel that its middle comes from, and a voxel that of the cell that its middle
  goes to ("Voxel v is labeled by f(w)"), images and labels alike: no value is made up.
- Nets 1 to 3 are one network of the three regions here, and its input is the second cube's (printed: N_0, the first's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fedbrats.data.knothe import Rearranged
from fedbrats.data.rearranging import MOST, grid, rearrange

SIZE = 128  # voxels along a side of the cube, as published; also 96
EXPONENT = 1.0  # of the density, as published
MARGIN = 5.0  # voxels around the tumour, as published
STEPS = 30  # of the flow


@dataclass(frozen=True)
class Transport:
    """The map of one case.

    shape: of the grid of the case; size: of the cube; brain: voxels of the brain, flat, int32 [n], ascending; cell: of
    each the cell of the cube that its middle goes to, flat, int32 [n]; voxel: of each cell the voxel that its middle
    comes from, flat, int32 [size^3]. costs: equation 3, of the rearrangement alone and of the map; turning: see
    `rearranging.Rearrangement`; mass_error: the largest relative error of the mass in a cell; steps: taken by the flow.
    """

    shape: tuple[int, int, int]
    size: int
    brain: np.ndarray
    cell: np.ndarray
    voxel: np.ndarray
    costs: tuple[float, float] = (0.0, 0.0)
    turning: float = 0.0
    mass_error: float = 0.0
    steps: int = 0

    def to_cube(self, volume: np.ndarray) -> np.ndarray:
        """A volume [X, Y, Z] of the case, image or labels, in the cube [size, size, size] (same dtype).

        Raises:
            ValueError: another shape.
        """
        if volume.shape != self.shape:
            raise ValueError(f"expected a volume of shape {self.shape}, got {volume.shape}")
        return volume.reshape(-1)[self.voxel].reshape((self.size,) * 3)

    def from_cube(self, cube: np.ndarray) -> np.ndarray:
        """What stands in the cube, on the grid of the case, 0 outside the brain (same dtype).

        Raises:
            ValueError: another shape.
        """
        if cube.shape != (self.size,) * 3:
            raise ValueError(f"expected a cube of {self.size} voxels a side, got shape {cube.shape}")
        volume = np.zeros(self.shape, cube.dtype)
        volume.reshape(-1)[self.brain] = cube.reshape(-1)[self.cell]
        return volume


def density(
    flair: np.ndarray,
    brain: np.ndarray,
    exponent: float = EXPONENT,
    tumour: np.ndarray | None = None,
    margin: float = MARGIN,
) -> np.ndarray:
    """Density of equations 6 and 7, float64 [X, Y, Z], 0 outside the brain.

    Args:
        flair: intensities of any scale [X, Y, Z].
        brain: where the brain is, bool [X, Y, Z].
        exponent: rho = exp(exponent I); 0 makes every voxel alike.
        tumour: whole tumour that the second phase enlarges, bool [X, Y, Z]; None in the first. An empty one is
            nothing to enlarge: density 1 everywhere.
        margin: voxels around it that are enlarged, too (in any direction, Euclidean).

    Raises:
        ValueError: no brain, or a FLAIR without contrast in it (unless the exponent is 0).
    """
    if not brain.any():
        raise ValueError("every voxel is 0, expected a brain")
    values = flair[brain].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("NaN or infinite voxels, expected finite intensities")
    if low == high and exponent:
        raise ValueError(f"FLAIR is {low:g} in the whole brain, expected an image to make a density of")
    found = np.zeros(flair.shape)
    found[brain] = np.exp(exponent * (values - low) / (high - low)) if exponent else 1.0
    if tumour is None:
        return found
    near = ndimage.distance_transform_edt(~tumour) <= margin if tumour.any() else tumour
    return np.where(near, found, brain.astype(np.float64))


def transport(
    rho: np.ndarray, spacing: tuple[float, float, float], size: int = SIZE, steps: int = STEPS
) -> Transport:
    """Map a brain to a cube.

    Args:
        rho: density [X, Y, Z], 0 outside the brain.
        spacing: of the voxels in mm.
        size: of the cube in voxels.
        steps: of the flow at most; 0 takes the rearrangement as it is.

    Raises:
        ValueError: no density above 0, a negative one, or a size below 2.
    """
    if size < 2 or steps < 0 or not (rho >= 0).all() or not rho.any():
        raise ValueError(
            "expected a density of 0 or more that is not 0 everywhere, size >= 2 and steps >= 0, got "
            f"size={size}, steps={steps}"
        )
    inside = np.nonzero(rho)
    corner = np.array([part.min() for part in inside])
    box = tuple(slice(part.min(), part.max() + 1) for part in inside)
    mass = rho[box] / rho.sum()
    places = np.stack(inside) - corner[:, None]
    one = Rearranged(mass)
    weights = mass[tuple(places)]
    unit = (len(weights) * np.prod(spacing)) ** (1 / 3)  # mm, of a brain of volume 1
    scale = (np.array(spacing) / unit)[:, None]
    shift = 0.5 - ((places + 0.5) * scale * weights).sum(1, keepdims=True)

    flow = rearrange(lambda points: one.origins(points) * scale + shift, min(MOST, size), steps)
    straight = one.forward(places + 0.5)
    goes = flow.forward(straight)
    cells = grid((np.arange(size) + 0.5) / size).reshape(3, -1)
    comes = np.floor(one.origins(flow.inverse(cells))).astype(np.int64) + corner[:, None]
    at = (places + 0.5) * scale + shift
    costs = (float((((at - to) ** 2).sum(0) * weights).sum()) for to in (straight, goes))
    return Transport(
        shape=(rho.shape[0], rho.shape[1], rho.shape[2]),
        size=size,
        brain=np.ravel_multi_index(inside, rho.shape).astype(np.int32),
        cell=np.ravel_multi_index(tuple(_cells(goes, size)), (size,) * 3).astype(np.int32),
        voxel=np.ravel_multi_index(tuple(comes), rho.shape).astype(np.int32),
        costs=(next(costs), next(costs)),
        turning=flow.turning,
        mass_error=flow.volume_error,
        steps=flow.taken,
    )


def _cells(points: np.ndarray, size: int) -> np.ndarray:
    return np.minimum((points * size).astype(np.int64), size - 1)

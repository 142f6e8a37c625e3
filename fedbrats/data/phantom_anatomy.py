"""The phantom's head: tissue classes and tumour of one synthetic patient.

Everything is drawn in millimetres around the centre of the brain, so a case shows the same anatomy at every
image size. Axes follow the order in which BraTS stores its files: x to the left, y to posterior, z to superior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

Volume = NDArray[np.float32]

BOX = (150.0, 186.0, 155.0)  # mm, holds every brain; at 240x240x155 it makes voxels of 1 mm, as in BraTS
NCR, ED, ET = 1, 2, 4  # numbers in BraTS files up to 2021
MULTIFOCAL = 0.15  # share of high-grade cases with a second lesion
RATER = 1.5  # mm, standard deviation of the rater's outline of oedema
# The same of each of several annotators. It is about a voxel of the small phantoms, as less would move few of theirs.
ANNOTATOR = 3.0


@dataclass(frozen=True)
class Grid:
    """Voxel centres of the box around the brain: `x`, `y`, `z` in mm, shaped to broadcast to [X, Y, Z]."""

    spacing: float  # mm, isotropic
    window: tuple[slice, slice, slice]  # where the box lies in the full volume
    x: Volume
    y: Volume
    z: Volume

    @property
    def axes(self) -> tuple[Volume, Volume, Volume]:
        return self.x, self.y, self.z


@dataclass(frozen=True)
class Anatomy:
    """One patient on the grid, all [X, Y, Z]: shares of each voxel between 0 and 1, labels in BraTS numbers."""

    mask: NDArray[np.bool_]  # brain
    csf: Volume
    gm: Volume  # the rest of the brain is white matter
    labels: NDArray[np.uint8]
    oedema: Volume  # how far oedema replaces the tissue's own signal
    lesions: Volume  # small white-matter lesions of age, bright on FLAIR and no part of the tumour
    vessels: Volume  # sagittal sinus, bright on T1ce
    depth: Volume  # below the true outline of the whole tumour: mm, approximate, negative outside


@dataclass(frozen=True)
class _Tumour:
    reach: Volume  # distance from the centre in units of the core's radius: 1 on the core's surface
    radius: float  # of the core, mm
    swelling: float  # how far oedema reaches beyond the core, mm
    high_grade: bool


def voxel_size(shape: Sequence[int]) -> float:
    """Edge of the cubic voxels in mm with which the brain just fits into `shape`; 1.0 for 240x240x155."""
    return max(extent / size for extent, size in zip(BOX, shape))


def make_grid(shape: Sequence[int]) -> Grid:
    """The box around the brain, in the middle of a volume of `shape` voxels."""
    spacing = voxel_size(shape)
    window, axes = [], []
    for axis, (size, extent) in enumerate(zip(shape, BOX)):
        inside = min(size, int(np.ceil(extent / spacing)))
        start = (size - inside) // 2
        window.append(slice(start, start + inside))
        position = (np.arange(inside) - (inside - 1) / 2) * spacing
        axes.append(position.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)]))
    return Grid(spacing, (window[0], window[1], window[2]), axes[0], axes[1], axes[2])


def smooth_noise(grid: Grid, rng: np.random.Generator, wavelength: float) -> Volume:
    """Gaussian random field [X, Y, Z] of mean 0 and variance 1, smooth on the scale of `wavelength` mm.

    Noise on a coarse lattice, spread with a separable Gaussian kernel. The lattice is fixed in mm, so that the
    field does not depend on the image size. `einsum` without BLAS gives the same bits for any number of threads.
    """
    weights = []
    for axis, extent in zip(grid.axes, BOX):
        half = int(np.ceil(extent / 2 / wavelength)) + 1
        nodes = np.arange(-half, half + 1) * wavelength
        weight = np.exp(-1.5 * ((axis.reshape(-1, 1) - nodes) / wavelength) ** 2)
        weights.append((weight / np.sqrt((weight**2).sum(1, keepdims=True))).astype(np.float32))
    field = rng.standard_normal([weight.shape[1] for weight in weights], dtype=np.float32)
    field = np.einsum("ia,abc->ibc", weights[0], field)
    field = np.einsum("jb,ibc->ijc", weights[1], field)
    return np.einsum("kc,ijc->ijk", weights[2], field)


def draw_anatomy(grid: Grid, rng: np.random.Generator, high_grade: bool, size: float) -> Anatomy:
    """One random patient; `size` scales the tumour's diameter, 1 is the usual mix of sizes."""
    growth = rng.uniform(0.94, 1.04)  # head size
    depth = growth * _depth(*(axis / growth for axis in grid.axes))
    depth += 1.5 * smooth_noise(grid, rng, 45.0)
    mask = ndi.binary_opening(depth > 0)  # the noise may leave single voxels
    tumour = _draw_tumour(grid, rng, high_grade, size)
    csf, gm, lesions = _tissues(grid, rng, depth, tumour.reach)
    inside = _oedema_depth(grid, rng, tumour, csf + 0.5 * gm)
    labels = _labels(grid, rng, tumour, inside, mask)
    oedema = np.clip(inside / np.float32(5) + np.float32(0.5), 0, 1)
    vessels = _soft(4 - np.hypot(grid.x, depth - 3), grid.spacing) * (grid.y > -40)
    vessels *= (grid.z > -25) & (labels == 0)
    outer = np.maximum(inside, (1 - tumour.reach) * np.float32(tumour.radius))
    return Anatomy(mask, csf, gm, labels, oedema, lesions * (labels == 0), vessels, outer)


def annotated(grid: Grid, rng: np.random.Generator, anatomy: Anatomy) -> NDArray[np.bool_]:
    """The whole tumour [X, Y, Z] as one annotator outlines it.

    Everywhere the outline is shifted by a distance of mean 0 and standard deviation `ANNOTATOR`, smooth on the scale of
    20 mm. So an annotator marks a voxel of depth d mm with the probability Phi(d / ANNOTATOR), and of several the
    number who do is binomial.
    """
    shift = np.float32(ANNOTATOR) * smooth_noise(grid, rng, 20.0)
    return anatomy.mask & (anatomy.depth + shift > 0)


def _soft(signed: Volume, spacing: float) -> Volume:
    """Share of a voxel that lies inside a surface, given the signed distance (mm, positive inside)."""
    return np.clip(signed / np.float32(max(spacing, 1.0)) + np.float32(0.5), 0, 1)


def _ellipsoid(x: Volume, y: Volume, z: Volume, centre: Sequence[float], radii: Sequence[float]) -> Volume:
    """Signed distance (mm, approximate, positive inside) to an ellipsoid."""
    (cx, cy, cz), (rx, ry, rz) = centre, radii
    r = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
    return (1 - r) * np.float32(min(radii))


def _depth(x: Volume, y: Volume, z: Volume) -> Volume:
    """Depth below the brain's surface (mm, approximate, negative outside): cerebrum, cerebellum and stem."""
    power = np.float32(2.4)  # between an ellipsoid and a box
    width = 63 + 6 * np.clip(y / 60, -1.3, 0.5)  # the frontal lobes are narrower
    height = np.where(z > 0, np.float32(58), np.float32(46))
    r = np.abs(x / width) ** power + np.abs(y / 83) ** power + np.abs(z - 6) ** power / height**power
    cerebrum = (1 - r ** (1 / power)) * np.float32(62)
    cerebellum = _ellipsoid(x, y, z, (0, 42, -40), (50, 33, 24))
    stem = _ellipsoid(x, y, z, (0, 14, -42), (15, 16, 26))
    return np.maximum(np.maximum(cerebrum, cerebellum), stem)


def _tissues(
    grid: Grid, rng: np.random.Generator, depth: Volume, reach: Volume
) -> tuple[Volume, Volume, Volume]:
    """Shares of CSF, grey matter and age-related lesions; the tumour displaces the deep structures."""
    age = rng.uniform(0, 1)
    # Sulci are the sheets where a random field changes sign; a growing tumour closes those around it.
    near = np.exp(-(reach**2) / 4)
    sheet = np.abs(smooth_noise(grid, rng, 11.0)) + 0.3 * near
    sulci = depth - 15 * np.clip(1 - sheet / np.float32(0.18 + 0.14 * age), 0, 1)
    ribbon = depth - 14 * np.clip(1.2 - sheet / 0.7, 0, 1)
    shift_x, shift_y, shift_z = (8 * near * smooth_noise(grid, rng, 60.0) for _ in range(3))
    x, y, z = grid.x + shift_x, grid.y + shift_y, grid.z + shift_z
    side = np.abs(x)
    fissure = 36 * np.clip(1 - side / 5, 0, 1) * (z > -15)
    sulci, ribbon = np.minimum(sulci, depth - fissure), np.minimum(ribbon, depth - 1.1 * fissure)
    cortex = _soft(4.5 - ribbon, grid.spacing)
    thalamus = _ellipsoid(side, y, z, (11, 10, 0), (8, 14, 10))
    putamen = _ellipsoid(side, y, z, (26, -6, 0), (6, 18, 11))
    gm = np.maximum(cortex, _soft(np.maximum(thalamus, putamen), grid.spacing))
    wide = 0.75 + 0.7 * age
    bend = side - (8 + 0.007 * (y + 6) ** 2)  # the horns part towards front and back
    lateral = _ellipsoid(bend, y, z, (0, 4, 14), (5.0 * wide, 36, 9 * wide))
    third = _ellipsoid(side, y, z, (0, 6, -2), (2.2 * wide, 13, 9))
    ventricles = np.maximum(lateral, third)
    csf = np.maximum(_soft(0.5 - sulci, grid.spacing), _soft(ventricles, grid.spacing))
    gm = np.minimum(gm, 1 - csf)
    caps = age * np.exp(-((ventricles / 5) ** 2)) * np.clip(smooth_noise(grid, rng, 14.0) + 0.3, 0, 1)
    return csf, gm, caps * (1 - csf) * (1 - gm)


def _draw_tumour(grid: Grid, rng: np.random.Generator, high_grade: bool, size: float) -> _Tumour:
    radius = float(np.clip(size * (17 if high_grade else 19) * np.exp(0.22 * rng.standard_normal()), 9, 30))
    swelling = rng.uniform(8, 17) if high_grade else rng.uniform(5, 12)
    lesions = [(_tumour_centre(rng, radius), radius)]
    if high_grade and rng.random() < MULTIFOCAL:
        lesions.append((_tumour_centre(rng, radius), max(8.0, 0.5 * radius)))
    reaches = []
    for centre, lesion_radius in lesions:
        stretch = lesion_radius * np.exp(0.14 * rng.standard_normal(3))
        x, y, z = ((axis - c) / s for axis, c, s in zip(grid.axes, centre, stretch))
        falx = np.where(grid.x * centre[0] < 0, np.float32(1.6), np.float32(1))  # holds up growth across
        reaches.append((np.sqrt(x**2 + y**2 + z**2) * falx).astype(np.float32))
    bumps = 0.2 * smooth_noise(grid, rng, 22.0) + 0.08 * smooth_noise(grid, rng, 9.0)
    return _Tumour(np.minimum.reduce(reaches) * np.exp(bumps), radius, float(swelling), high_grade)


def _tumour_centre(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """A point (mm) of the cerebrum's white matter, beside the midline and not too close to the surface."""
    while True:
        centre = rng.uniform((-50, -65, -12), (50, 62, 42))
        depth = float(_depth(*np.float32(centre).reshape(3, 1))[0])
        if depth > 10 + 0.4 * radius and abs(centre[0]) > 12 + 0.3 * radius:
            return centre


def _oedema_depth(grid: Grid, rng: np.random.Generator, tumour: _Tumour, barrier: Volume) -> Volume:
    """Depth inside the oedema (mm, negative outside), which follows the white matter."""
    distance = (tumour.reach * np.exp(0.12 * smooth_noise(grid, rng, 12.0)) - 1) * tumour.radius
    return np.float32(tumour.swelling) * (1 - np.float32(0.85) * barrier) - distance


def _labels(
    grid: Grid, rng: np.random.Generator, tumour: _Tumour, oedema: Volume, mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """BraTS labels [X, Y, Z] as a rater would draw them."""
    # No rater hits the faint border of oedema exactly: this bounds the Dice that any network can reach.
    labels = np.where(mask & (oedema + RATER * smooth_noise(grid, rng, 10.0) > 0), ED, 0).astype(np.uint8)
    core = (tumour.reach < 1) & mask
    if tumour.high_grade:
        # The erosion closes the rim where it would be thinner than a voxel.
        dead = tumour.reach * np.exp(0.25 * smooth_noise(grid, rng, 10.0)) < rng.uniform(0.45, 0.75)
        labels[core] = ET
        labels[dead & ndi.binary_erosion(core)] = NCR
    else:
        labels[core] = NCR
    return labels

"""A brain in a cube by hand: a uniform cube is itself, equal masses in equal cells, labels there and back."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.data.knothe import Rearranged
from fedbrats.data.rearranging import rearrange
from fedbrats.data.transport import density, transport

SIDES = (1.0, 1.0, 1.0)


def head(side: int = 28) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FLAIR, brain and whole tumour of an ellipsoid with a bright ball in it."""
    x, y, z = (np.indices((side,) * 3) - side / 2 + 0.5) / (side / 2)
    brain = (x / 0.8) ** 2 + (y / 0.95) ** 2 + (z / 0.75) ** 2 < 1
    tumour = (x - 0.2) ** 2 + (y - 0.3) ** 2 + z**2 < 0.35**2
    return np.where(brain, 100 + 20 * np.sin(5 * x) + 90 * tumour, 0), brain, tumour


@pytest.mark.parametrize("steps", [0, 5])
def test_a_uniform_cube_is_itself_whatever_its_place(steps: int) -> None:
    brain = np.zeros((20, 18, 17), bool)
    brain[3:11, 5:13, 7:15] = True
    found = transport(density(np.zeros(brain.shape), brain, exponent=0), SIDES, 8, steps)
    assert found.cell.tolist() == list(range(8**3))
    assert found.voxel.tolist() == np.flatnonzero(brain).tolist() == found.brain.tolist()
    np.testing.assert_allclose(found.costs, 0, atol=1e-25)
    assert (found.steps, found.turning, found.mass_error) == (0, 0.0, 0.0)


def test_a_uniform_box_is_scaled_and_costs_what_that_costs() -> None:
    """16 x 8 x 8 voxels: to the cube x is halved. With a volume of 1, sides are a, a/2, a/2 with a = 4^(1/3)."""
    found = transport(np.ones((16, 8, 8)), SIDES, 8)
    assert (np.bincount(found.cell, minlength=8**3) == 2).all()
    np.testing.assert_array_equal(found.cell.reshape(16, 8, 8)[::2], np.arange(8**3).reshape(8, 8, 8))
    a = 4 ** (1 / 3)
    variance = [(1 - 1 / n**2) / 12 for n in (16, 8, 8)]  # of n middles of a unit length
    expected = sum(v * (side - 1) ** 2 for v, side in zip(variance, (a, a / 2, a / 2)))
    assert found.costs[0] == pytest.approx(expected)
    # The same brain in voxels that are half as long along x has the shape of a cube already.
    assert transport(np.ones((16, 8, 8)), (0.5, 1.0, 1.0), 8).costs[1] == pytest.approx(0, abs=1e-25)


def test_density_is_equations_6_and_7() -> None:
    flair = np.arange(12.0).reshape(12, 1, 1)
    brain = flair > 0
    first = density(flair, brain)[:, 0, 0]
    np.testing.assert_allclose(first, [0, *np.exp(np.arange(11) / 10)])
    tumour = flair == 4
    second = density(flair, brain, tumour=tumour, margin=2)[:, 0, 0]
    np.testing.assert_allclose(second, [0, 1, *first[2:7], 1, 1, 1, 1, 1])
    assert density(flair, brain, tumour=tumour & False).sum() == 11  # nothing found, nothing enlarged


@pytest.mark.parametrize("steps", [0, 12])
def test_every_cell_has_the_same_mass_within_five_per_cent(steps: int) -> None:
    """Counted: 6 x 6 x 6 points spread through each voxel go to cells of 1/4 of the cube's side."""
    flair, brain, _ = head()
    rho = density(flair, brain)
    places = np.stack(np.nonzero(brain))
    mass = rho / rho.sum()
    one, scale = Rearranged(mass), places.shape[1] ** (-1 / 3)
    flow = rearrange(lambda points: one.origins(points) * scale + 0.5 - 14 * scale, 16, steps)
    offsets = ((np.indices((6, 6, 6)).reshape(3, -1) + 0.5) / 6).T
    counted = np.zeros(64)
    for offset in offsets:
        cells = (flow.forward(one.forward(places + offset[:, None])) * 4).astype(int)
        counted += np.bincount(np.ravel_multi_index(tuple(cells), (4, 4, 4)), mass[brain], 64)
    np.testing.assert_allclose(counted / len(offsets) * 64, 1, atol=0.05)
    assert flow.taken == steps


def test_the_flow_lowers_the_cost_and_the_second_phase_enlarges_the_tumour() -> None:
    flair, brain, tumour = head()
    first = transport(density(flair, brain), SIDES, 24, 12)
    assert first.costs[1] < 0.9 * first.costs[0]
    assert 0 < first.turning < 1
    assert first.mass_error < 0.05
    rho = density(flair, brain, 2.0, tumour, 2)
    second = transport(rho, SIDES, 24, 12)
    shares = [tumour.sum() / brain.sum(), first.to_cube(tumour).mean(), second.to_cube(tumour).mean()]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] == pytest.approx(rho[tumour].sum() / rho.sum(), rel=0.03)  # its share of the mass
    again = transport(rho, SIDES, 24, 12)
    for name in ("cell", "voxel", "brain"):
        np.testing.assert_array_equal(getattr(second, name), getattr(again, name))
    assert second.costs == again.costs


def test_labels_come_back_with_a_dice_of_0_9_at_least() -> None:
    flair, brain, tumour = head()
    found = transport(density(flair, brain), SIDES, 28, 12)
    labels = tumour.astype(np.uint8) * 4
    back = found.from_cube(found.to_cube(labels))
    assert (back.dtype, back.shape) == (np.uint8, labels.shape)
    assert set(np.unique(back)) == {0, 4}
    dice = 2 * ((back > 0) & tumour).sum() / ((back > 0).sum() + tumour.sum())
    print(f"Dice there and back {dice:.4f}")
    assert dice >= 0.9
    assert not back[~brain].any()


def test_what_cannot_be_mapped_is_refused() -> None:
    flair, brain, _ = head(8)
    with pytest.raises(ValueError, match="every voxel is 0, expected a brain"):
        density(flair, brain & False)
    with pytest.raises(ValueError, match="FLAIR is 7 in the whole brain"):
        density(brain * 7.0, brain)
    with pytest.raises(ValueError, match="not 0 everywhere"):
        transport(np.zeros((4, 4, 4)), SIDES)
    found = transport(brain.astype(float), SIDES, 8, 0)
    with pytest.raises(ValueError, match="expected a volume of shape"):
        found.to_cube(np.zeros((8, 8, 9)))
    with pytest.raises(ValueError, match="expected a cube of 8"):
        found.from_cube(np.zeros((8, 8, 9)))

"""One rule for grids: a tenth of a voxel at the corners, however the axes are stored."""

import nibabel as nib
import numpy as np
import pytest

from fedbrats.data.grids import corners_apart, difference, stored_in
from fedbrats.data.nifti import Source

RAS = Source((4, 5, 6), np.diag([1.0, 1, 1, 1]).tolist(), "RAS")


def moved(by: float, scale: float = 1.0) -> Source:
    affine = np.diag([scale, 1.0, 1.0, 1.0])
    affine[1, 3] = by
    return Source((4, 5, 6), affine.tolist(), "RAS")


def test_the_world_counts_and_not_the_storage() -> None:
    # stored axis 0 (5 voxels) runs along y, axis 1 (4 voxels) along x, both backwards
    flipped = Source((5, 4, 6), [[0, -1, 0, 3], [-1, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]], "PLS")
    assert difference(RAS, flipped) is None
    assert (
        difference(RAS, Source((4, 5, 7), RAS.affine, "RAS")) == "wrong shape (4, 5, 6), expected (4, 5, 7)"
    )


@pytest.mark.parametrize(
    ("other", "same"), [(moved(0.09), True), (moved(0.11), False), (moved(0, 1.03), True)]
)
def test_a_tenth_of_a_voxel(other: Source, same: bool) -> None:
    assert (difference(RAS, other) is None) == same
    assert (difference(other, RAS) is None) == same


def test_distance_by_hand() -> None:
    """A scale of 1.03 moves the corner at index 3 by 0.09 mm, a shift moves all of them."""
    assert corners_apart(np.array(moved(0, 1.03).affine), np.array(RAS.affine), (4, 5, 6)) == pytest.approx(
        0.09
    )
    assert corners_apart(np.array(moved(-2).affine), np.array(RAS.affine), (4, 5, 6)) == pytest.approx(2)


def test_voxels_are_read_as_stored_in_another_header() -> None:
    stored = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    turned = np.array([[0, 1.0, 0, 0], [-1, 0, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]])
    other = Source((4, 5, 6), turned.tolist(), "ALS")
    by_other = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(stored, turned)).dataobj)
    by_own = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(stored, np.eye(4))).dataobj)
    np.testing.assert_array_equal(stored_in(by_own, RAS, other), by_other)
    with pytest.raises(ValueError, match=r"stored with shape \(4, 5, 6\), expected \(4, 5, 7\)"):
        stored_in(by_own, RAS, Source((4, 5, 7), RAS.affine, "RAS"))

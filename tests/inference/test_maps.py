"""Maps lie where the image lies, whatever the orientation of its file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from fedbrats.data.nifti import read_volume
from fedbrats.inference.maps import write_map

AFFINE = np.array([[1.1, 0.1, 0, -40], [-0.1, 0.9, 0, 17], [0, 0, 2.5, 5], [0, 0, 0, 1]])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "SPL", "IRA"])
def test_a_map_comes_back_as_it_was(codes: str, tmp_path: Path) -> None:
    """The image's own voxels, written as a map, have the image's affine and its array."""
    values = np.random.default_rng(0).random((5, 6, 7), np.float32)
    change = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
    stored = nib.Nifti1Image(values, AFFINE).as_reoriented(change)
    nib.save(stored, tmp_path / "image.nii.gz")
    canonical, source = read_volume(tmp_path / "image.nii.gz")
    write_map(tmp_path / "maps" / "map.nii.gz", canonical.astype(np.float32), source)
    found = nib.load(tmp_path / "maps" / "map.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(stored.dataobj))
    np.testing.assert_allclose(found.affine, stored.affine, atol=1e-5)
    assert found.get_data_dtype() == np.float32
    assert "".join(nib.aff2axcodes(found.affine)) == codes
    assert [f.name for f in (tmp_path / "maps").iterdir()] == ["map.nii.gz"]


def test_wrong_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((5, 6, 7), np.int16), AFFINE), tmp_path / "image.nii.gz")
    _, source = read_volume(tmp_path / "image.nii.gz")
    for values in (np.zeros((5, 6, 8), np.float32), np.zeros((5, 6, 7))):
        with pytest.raises(ValueError, match=r"map\.nii\.gz: expected float32"):
            write_map(tmp_path / "map.nii.gz", values, source)

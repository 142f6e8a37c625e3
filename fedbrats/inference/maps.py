"""Maps of numbers, such as probabilities, as NIfTI files in the space of the images."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from fedbrats.data.nifti import Source, canonical_affine, canonical_shape, image_in
from fedbrats.files import replacing

SHARE = "annotators_share"  # of annotators, in the name of a map


def write_map(path: Path, values: np.ndarray, source: Source) -> None:
    """Write values float32 [X, Y, Z] in canonical order as a NIfTI file in the space of `source`.

    Args:
        path: target, `.nii.gz`; its folder is made; replaced as a whole or not at all.
        values: one number per voxel.
        source: space on disk of the volume that the values belong to.

    Raises:
        ValueError: wrong dtype or wrong shape.
    """
    if values.dtype != np.float32 or values.shape != canonical_shape(source):
        raise ValueError(
            f"{path}: expected float32 values of shape {canonical_shape(source)}, "
            f"got {values.dtype} of shape {values.shape}"
        )
    back = ornt_transform(axcodes2ornt(("R", "A", "S")), io_orientation(np.array(source.affine)))
    stored = nib.Nifti1Image(values, canonical_affine(source)).as_reoriented(back)
    # The source's own affine, as the one worked out may differ from it by rounding.
    image = image_in(np.ascontiguousarray(stored.dataobj, np.float32), source)
    with replacing(path) as unfinished:
        nib.save(image, unfinished)

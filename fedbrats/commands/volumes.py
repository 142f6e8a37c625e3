"""The volumes of a case as its files hold them, for commands that need no preprocessed ones."""

from __future__ import annotations

import numpy as np

from fedbrats.data.cases import MODALITIES, Case
from fedbrats.data.nifti import Source, read_volume
from fedbrats.data.preprocess import files_of
from fedbrats.data.stream import Bounds, check_file


def read_volumes(case: Case, bounds: Bounds) -> tuple[np.ndarray, Source, np.ndarray | None]:
    """The modalities float32 [4, X, Y, Z], the space of the first, and the numbers of the label, None without one.

    Raises:
        ValueError: a missing modality, an unreadable file, shapes that differ, or voxels that are not finite.
    """
    files = files_of(case)
    for file in files.values():
        check_file(file.path, bounds)
    volumes, sources = zip(*(read_volume(f.path, f.channel, bounds) for f in files.values()), strict=True)
    for file, volume in zip(files.values(), volumes, strict=True):
        if volume.shape != volumes[0].shape:
            raise ValueError(f"{file.path}: shape {volume.shape} differs from {volumes[0].shape}")
        if not np.isfinite(volume).all():
            raise ValueError(f"{file.path}: NaN or infinite voxels, expected finite intensities")
    truth = volumes[len(MODALITIES)] if len(volumes) > len(MODALITIES) else None
    return np.stack(volumes[: len(MODALITIES)]).astype(np.float32), sources[0], truth

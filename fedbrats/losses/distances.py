"""Distances that losses weigh voxels by; they depend on the truth alone and have no gradient."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects


def outside_distance(region: np.ndarray) -> np.ndarray:
    """Distance of each voxel to the nearest one of a bool array, in voxels, float32: 0 inside, 1 beside it.

    Nothing is near an empty region; its distances are 0.
    """
    found = np.zeros(region.shape, np.float32)
    if region.any() and not region.all():
        # The nearest voxel of the region touches what lies outside, so the box of that and one voxel around it are
        # enough, which is much less than all where the region is the background.
        box = tuple(
            slice(max(side.start - 1, 0), side.stop + 1)
            for side in find_objects((~region).astype(np.uint8))[0]
        )
        found[box] = distance_transform_edt(~region[box])
    return found

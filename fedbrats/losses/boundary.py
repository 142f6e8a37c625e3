"""Boundary loss (Kervadec et al., MIDL 2019)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor, nn

from fedbrats.losses.channels import foreground, per_sample


def signed_distance(region: np.ndarray) -> np.ndarray:
    """Distance of each voxel centre to the boundary of a bool array, in voxels, float32, negative inside.

    The boundary runs half-way between two neighbours, which lie at -0.5 and 0.5. An empty or a full region has no
    boundary; its distances are 0.
    """
    if not region.any() or region.all():
        return np.zeros(region.shape, np.float32)
    distances = distance_transform_edt(~region) - 0.5
    # The nearest voxel outside touches the region, so its box and one voxel around it are enough for the inside.
    box = tuple(
        slice(max(side.start - 1, 0), side.stop + 1) for side in find_objects(region.astype(np.uint8))[0]
    )
    inside = 0.5 - distance_transform_edt(region[box])
    distances[box] = np.where(region[box], inside, distances[box])
    return distances.astype(np.float32)


class Boundary(nn.Module):
    """Mean over voxels and channels of p times the signed distance to the true boundary (Kervadec et al.).

    The multi-plane UNet++ paper (BrainLes 2021) prints the sum over voxels; the mean does not grow with the patch. It
    speaks of a "level set function" of the distance and no sign; without one, predicting nothing would cost least.
    The distances of a region are divided by the largest of them, so they lie in [-1, 1]. In voxels they would outweigh
    Dice, in a large patch by far; divided, the gradients of both are of one order whatever the patch.

    Softmax classes count one by one without the background ("macro average ... one-versus-all"). The loss is negative
    when a prediction is good, and 0 for a region that is empty or fills the patch, so it needs Dice beside it
    (`ramp.Ramp`). Distances are found on the CPU for every patch, without gradient.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        probabilities, target = foreground(logits, target)
        regions = (target > 0.5).cpu().numpy()
        maps = np.stack([[_scaled(signed_distance(region)) for region in sample] for sample in regions])
        return per_sample(probabilities * torch.from_numpy(maps).to(logits.device))


def _scaled(distances: np.ndarray) -> np.ndarray:
    largest = float(np.abs(distances).max())
    return distances / largest if largest else distances

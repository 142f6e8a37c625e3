"""Boundary loss (Kervadec et al., MIDL 2019)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedbrats.losses.channels import foreground, per_sample
from fedbrats.losses.distances import outside_distance


def signed_distance(region: np.ndarray) -> np.ndarray:
    """Distance of each voxel centre to the boundary of a bool array, in voxels, float32, negative inside.

    The boundary runs half-way between two neighbours, which lie at -0.5 and 0.5. An empty or a full region has no
    boundary; its distances are 0.
    """
    if not region.any() or region.all():
        return np.zeros(region.shape, np.float32)
    half = np.float32(0.5)
    return np.where(region, half - outside_distance(~region), outside_distance(region) - half)


class Boundary(nn.Module):
    """Mean over voxels and channels of p times the signed distance to the true boundary (Kervadec et al.).

    The multi-plane UNet++ paper (BrainLes 2021) prints the sum over voxels of p times "a level set function" of the
    distance, and no sign; without one, predicting nothing would cost least. In a sum of distances in voxels Dice is
    lost, the more the larger the patch, so by default the distances of a region are divided by the largest of them,
    which puts them into [-1, 1], and the sum by the number of voxels: the gradients of both are then of one order
    whatever the patch. `scaled` false is the print.

    Softmax classes count one by one without the background ("macro average ... one-versus-all"). The loss is negative
    when a prediction is good, and 0 for a region that is empty or fills the patch, so it needs Dice beside it
    (`ramp.Ramp`). Distances are found on the CPU for every patch, without gradient.
    """

    def __init__(self, scaled: bool = True) -> None:
        """`scaled` false is the sum over voxels of distances in voxels, and the mean over channels alone."""
        super().__init__()
        self.scaled = scaled

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        probabilities, target = foreground(logits, target)
        regions = (target > 0.5).cpu().numpy()
        of = _scaled if self.scaled else signed_distance
        maps = np.stack([[of(region) for region in sample] for sample in regions])
        values = probabilities * torch.from_numpy(maps).to(logits.device)
        return per_sample(values if self.scaled else values.flatten(2).sum(2))


def _scaled(region: np.ndarray) -> np.ndarray:
    distances = signed_distance(region)
    largest = float(np.abs(distances).max())
    return distances / largest if largest else distances

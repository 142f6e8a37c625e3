"""A loss like the Hausdorff distance, of several labels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fedbrats.losses.channels import check_not_negative, foreground
from fedbrats.losses.distances import outside_distance
from fedbrats.tasks.segmentation import is_softmax


class MultiLabelHausdorff(nn.Module):
    """`mean` times Equation 2 plus `maximum` times Equation 3 of the U-Net with a variational branch (BrainLes 2021).

        L_mean = 1/|L| sum_l mean_j (q_jl^beta u_jl^alpha)
        L_max = 1/|L| sum_l max_j (q_jl^beta u_jl^alpha)

    q is the probability of label l at voxel j, u its distance to the true label in voxels, 0 inside. L are the four
    classes, the background among them: what is missed is predicted as some other label, which lies too far out. With
    two labels and beta = 2 the sum over them is the one-sided loss of Karimi et al. (IEEE TMI 2020), Equation 1 of the
    paper; with 1/|L| it is half of that, where the print says "equivalent". Sigmoid regions overlap; each is a problem
    of two labels, itself and the rest, and the mean is over all of these.

    A label that a patch does not have has no distance; its term is 0, and |L| stays the number of all. Printed are
    distances in the whole volume, found once; here they are those within the patch, found for every patch on the CPU,
    so a label beyond the edge counts as further away. The maximum is of each sample by itself.
    """

    def __init__(
        self, mean: float = 1.0, maximum: float = 0.1, alpha: float = 1.0, beta: float = 1.0
    ) -> None:
        """Choose weights and exponents.

        Args:
            mean: weight of L_mean; W_mean of the paper.
            maximum: weight of L_max.
            alpha: exponent of the distance.
            beta: exponent of the probability; below 1 a voxel with q = 0 would have an infinite gradient.

        Raises:
            ValueError: a weight is negative, both are zero, or an exponent is out of range.
        """
        super().__init__()
        for key, weight in (("mean", mean), ("maximum", maximum)):
            check_not_negative(key, weight)
        if mean + maximum == 0:
            raise ValueError("loss.mean and loss.maximum: not both may be zero.")
        if not 0 < alpha < math.inf:
            raise ValueError(f"loss.alpha={alpha}: must be a number above 0.")
        if not 1 <= beta < math.inf:
            raise ValueError(f"loss.beta={beta}: must be a number of 1 or more.")
        self.mean, self.maximum, self.alpha, self.beta = mean, maximum, alpha, beta

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        q, target = foreground(logits, target, include_background=True)
        if not is_softmax(logits.shape[1]):
            q, target = torch.cat([q, 1 - q], 1), torch.cat([target, 1 - target], 1)
        labels = (target > 0.5).cpu().numpy()
        distances = np.stack([[outside_distance(label) for label in sample] for sample in labels])
        u = torch.from_numpy(distances).to(logits.device)
        errors = (q**self.beta * u**self.alpha).flatten(2)
        return self.mean * errors.mean(2).mean(1) + self.maximum * errors.amax(2).mean(1)

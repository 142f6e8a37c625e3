"""Cross-entropy: binary for regions, which overlap, categorical for classes, which exclude each other."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fedbrats.losses.channels import as_float, per_sample
from fedbrats.tasks.segmentation import is_softmax


def voxel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-log of the probability of the truth, float32: [B, C, ...] for sigmoid regions, [B, ...] for softmax classes."""
    logits, target = as_float(logits, target)
    if is_softmax(logits.shape[1]):
        return cross_entropy(logits, target, reduction="none")
    return binary_cross_entropy_with_logits(logits, target, reduction="none")


class CrossEntropy(nn.Module):
    """Mean cross-entropy over the voxels of a sample, and over its regions where they are sigmoid.

    With four softmax classes this is the sparse categorical cross-entropy of DR-UNet104 (Eq. 1): -1/N times the sum
    over N voxels of log p at the true class.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        return per_sample(voxel_cross_entropy(logits, target))

"""Semantic error: whether each class is there at all, beside a loss of the voxels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedbrats.losses.channels import as_float, per_sample
from fedbrats.losses.in_round import value
from fedbrats.tasks.segmentation import targets


def is_presence(logits: Tensor) -> bool:
    """Whether logits [B, C, ...] have one voxel, so that they speak of the whole patch; [B, C] have none."""
    return logits.ndim > 2 and all(side == 1 for side in logits.shape[2:])


def presence(labels: Tensor, logits: Tensor) -> Tensor:
    """Which channels of `logits` [B, C, 1, ...] are anywhere in labels uint8 [B, ...], float of the same shape."""
    return targets(labels, logits.shape[1]).flatten(2).any(2).float().reshape(logits.shape)


class WithPresence(nn.Module):
    """A loss of the voxels, and for an output of one voxel the semantic error of context encoding.

    That is the mean binary cross-entropy over the channels, each with a sigmoid of its own, softmax classes too, as
    several are present at once (Zhang et al., "Context encoding for semantic segmentation", CVPR 2018, section 3.1;
    UNCE, BrainLes 2021, Equation 1). The target is 1 where any voxel of the patch has the channel. How much each counts
    is `train.deep_supervision`.
    """

    reads_presence: ClassVar[bool] = True

    def __init__(self, voxels: nn.Module) -> None:
        """`voxels` is the loss of outputs of more than one voxel."""
        super().__init__()
        self.voxels = voxels

    @property
    def by_round(self) -> bool:
        """Whether the loss of the voxels changes over the rounds."""
        return bool(getattr(self.voxels, "by_round", False))

    def forward(self, logits: Tensor, target: Tensor, when: float = 0.0) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...], `when` as in `in_round`."""
        logits, target = as_float(logits, target)
        if is_presence(logits):
            return per_sample(binary_cross_entropy_with_logits(logits, target, reduction="none"))
        return value(self.voxels, logits, target, when)

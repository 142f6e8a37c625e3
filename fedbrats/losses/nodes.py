"""Cross-entropy of the supervoxels of a graph network, beside a loss of the voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbrats.losses.channels import check_not_negative
from fedbrats.losses.in_round import value
from fedbrats.tasks.segmentation import CLASS

OUTSIDE = -1  # number of the voxels that are in no supervoxel


def is_of_nodes(logits: Tensor) -> bool:
    """Whether an output [B, C, ...] is `with_numbers`: no logits of voxels have so many channels."""
    return logits.ndim > 2 and logits.shape[1] == CLASS + 1


def with_numbers(logits: Tensor, numbers: Tensor) -> Tensor:
    """What a network gives of its supervoxels in training, float32 [B, 5, ...].

    Args:
        logits: of exclusive classes [B, 4, ...], the same for all voxels of a supervoxel.
        numbers: of the supervoxel of each voxel, [B, ...], from 0 to the number of voxels; `OUTSIDE` of none.
    """
    return torch.cat([numbers.unsqueeze(1).float(), logits.float()], 1)


class WithNodes(nn.Module):
    """A loss of the voxels, and for an output `with_numbers` the weighted cross-entropy of its supervoxels.

    The joint GNN-CNN on supervoxels (BrainLes 2021), section 2.4: the label of a supervoxel is the one that most of its
    voxels have (the smaller of two that have as many), and the weight goes by the label, "approximately inversely to
    the prevalence". As in PyTorch, the sum is divided by that of the weights; each sample by its own, so that no
    patient changes the loss of another. How much each part counts is `train.deep_supervision`.
    """

    reads_nodes: ClassVar[bool] = True

    def __init__(self, voxels: nn.Module, weights: Sequence[float]) -> None:
        """Choose both.

        Args:
            voxels: loss of the other outputs.
            weights: of background, NCR, ED and ET.

        Raises:
            ValueError: not four weights, or one that is not a positive number.
        """
        super().__init__()
        if len(weights) != CLASS:
            raise ValueError(
                f"loss.weights={list(weights)}: {CLASS} weights are needed, of BG, NCR, ED and ET."
            )
        for index, weight in enumerate(weights):
            check_not_negative(f"weights[{index}]", weight)
            if not weight:
                raise ValueError(f"loss.weights[{index}]=0: must be positive.")
        self.voxels, self.weights = voxels, tuple(map(float, weights))

    @property
    def by_round(self) -> bool:
        """Whether the loss of the voxels changes over the rounds."""
        return bool(getattr(self.voxels, "by_round", False))

    def forward(self, logits: Tensor, target: Tensor, when: float = 0.0) -> Tensor:
        """Loss of each sample, float32 [B]; `target` is [B, C, ...], and `when` as in `in_round`.

        `logits` are of the same shape, or `with_numbers`.
        """
        if not is_of_nodes(logits):
            return value(self.voxels, logits, target, when)
        numbers, truth = logits[:, 0].long().flatten(1), target.float().flatten(2)
        inside = (numbers != OUTSIDE).unsqueeze(1)
        at = numbers.clamp_min(0).unsqueeze(1)
        # As many places as voxels: more than there are supervoxels, but known without a look at the numbers.
        counts = torch.zeros_like(truth).scatter_add(2, at.expand_as(truth), truth * inside)
        label = counts.argmax(1).gather(1, at.squeeze(1))
        size = counts.sum(1, keepdim=True).gather(2, at).clamp_min(1)
        # A supervoxel is the sum of its voxels, each of which has its share of it.
        weight = (truth.new_tensor(self.weights)[label].unsqueeze(1) * inside / size).squeeze(1)
        entropy = cross_entropy(logits[:, 1:].float().flatten(2), label, reduction="none")
        total = weight.sum(1)
        return (weight * entropy).sum(1) / torch.where(total > 0, total, 1.0)

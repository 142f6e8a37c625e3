"""What a two-stage detector is to say of a slice, from its labels, and how far it is from that.

He et al., "Mask R-CNN" (ICCV 2017), section 3, with the focal loss (Lin et al., ICCV 2017) in both classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from fedbrats.data.regions import BACKGROUND
from fedbrats.models.boxes import NOBODY, encode, overlaps, picked

INSTANCES = 8  # most of a slice: the largest ones
# An anchor with the first overlap is an instance, with less than the second none (Ren, section 3.1.2).
SURE, UNSURE = 0.7, 0.3
HALF = 0.5  # a proposal with this overlap is an instance, with less none (He, section 3.1)
_TOUCHING = np.ones((3, 3))  # pixels that share a corner are of one instance


def instances(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The connected parts of the whole tumour in each slice, largest first, and their boxes.

    Args:
        labels: canonical [B, A, B'].

    Returns:
        Number of the part that a pixel belongs to, int64 [B, A, B'], 0 where it belongs to none, and boxes float32
        [B, INSTANCES, 4] of the parts 1, 2, ...; all 0 where there are fewer. Both on the device of `labels`.
    """
    parts = np.zeros(labels.shape, np.int64)
    boxes = np.zeros((len(labels), INSTANCES, 4), np.float32)
    for index, slice_ in enumerate((labels != BACKGROUND).cpu().numpy()):
        found, number = ndimage.label(slice_, _TOUCHING)
        sizes = np.bincount(found.ravel(), minlength=number + 1)[1:]
        places = ndimage.find_objects(found)
        for rank, part in enumerate(np.argsort(-sizes, kind="stable")[:INSTANCES]):
            a, b = places[part]
            parts[index][found == part + 1] = rank + 1
            boxes[index, rank] = a.start, b.start, a.stop, b.stop
    return torch.from_numpy(parts).to(labels.device), torch.from_numpy(boxes).to(labels.device)


def focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Equation 3 of the paper, -(1 - p_t)^gamma log(p_t), of each of `logits`; 0 is cross-entropy."""
    cost = binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (1 - target) * logits.sigmoid() + target * (-logits).sigmoid()  # 1 - p_t
    return wrong**gamma * cost


@dataclass(frozen=True)
class DetectionLoss:
    """What a detector has said of a batch; called with its labels it gives the loss of each slice."""

    sides: Sequence[int]  # of the images
    anchors: Tensor  # [M, 4]
    objectness: Tensor  # logits [B, M] of the anchors,
    offsets: Tensor  # [B, M, 4], and the way from them to the object
    proposals: Tensor  # [B, N, 4]
    ranks: Tensor  # [B, N], NOBODY where there is no proposal
    scores: Tensor  # logits [B, N] of the proposals,
    refined: Tensor  # offsets [B, N, 4],
    masks: Tensor  # and logits [B, N, m, m]
    gamma: float

    def __call__(self, labels: Tensor) -> Tensor:
        """The five terms of He et al., all with weight 1, summed: float32 [B].

        Args:
            labels: canonical [B, ...]; of other sides than the images they are brought to them by nearest neighbour.
        """
        parts, boxes = instances(_at_sides(labels, self.sides))
        return self._of_anchors(boxes) + self._of_proposals(parts, boxes)

    def _of_anchors(self, boxes: Tensor) -> Tensor:
        shared = overlaps(self.anchors.expand(len(boxes), -1, -1), boxes)  # [B, M, INSTANCES]
        most, nearest = shared.max(-1)
        top = shared.amax(1, keepdim=True)
        best_of_some = ((shared == top) & (top > 0)).any(
            -1
        )  # an instance without a sure anchor has its best ones
        positive = (most >= SURE) | best_of_some
        counts = positive | (most < UNSURE)
        target = encode(picked(boxes, nearest), self.anchors)
        return _two(self.objectness, self.offsets, positive, counts, target, self.gamma)

    def _of_proposals(self, parts: Tensor, boxes: Tensor) -> Tensor:
        most, nearest = overlaps(self.proposals, boxes).max(-1)
        counts = self.ranks > NOBODY
        positive = counts & (most >= HALF)
        target = encode(picked(boxes, nearest), self.proposals)
        found = _two(self.scores, self.refined, positive, counts, target, self.gamma)
        truth = _masks(parts, nearest + 1, self.proposals, self.masks.shape[-1])
        wrong = binary_cross_entropy_with_logits(self.masks, truth, reduction="none").mean((-2, -1))
        return found + _mean(wrong, positive)


def _two(
    logits: Tensor, offsets: Tensor, positive: Tensor, counts: Tensor, target: Tensor, gamma: float
) -> Tensor:
    """Focal loss of those that count, over the number of positive ones (Lin, section 4.1), and of their offsets."""
    classes = (focal(logits, positive.float(), gamma) * counts).sum(1) / positive.sum(1).clamp_min(1)
    # An absent instance has a box without a size, whose offsets are not finite.
    target = target.where(positive.unsqueeze(-1), offsets.detach())
    return classes + _mean(smooth_l1_loss(offsets, target, reduction="none").sum(-1), positive)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean [B] over those of `values` [B, N] that are `chosen`; 0 where none is."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp_min(1)


def _masks(parts: Tensor, numbers: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """Where a box [B, N, 4] shows the part of its number [B, N]: float32 [B, N, cells, cells], 0 or 1."""
    sides = torch.tensor(parts.shape[1:], device=boxes.device)
    steps = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    points = boxes[..., None, :2] + steps[:, None] * (boxes[..., 2:] - boxes[..., :2]).unsqueeze(-2)
    pixels = torch.minimum(points.long(), sides - 1)  # [B, N, cells, 2]
    a, b = pixels[..., 0].unsqueeze(-1), pixels[..., 1].unsqueeze(-2)
    batch = torch.arange(len(parts), device=boxes.device).reshape(-1, 1, 1, 1)
    return (parts[batch, a, b] == numbers[..., None, None]).float()


def _at_sides(labels: Tensor, sides: Sequence[int]) -> Tensor:
    """Labels [B, ...] at other sides by nearest neighbour."""
    if tuple(labels.shape[1:]) == tuple(sides):
        return labels
    a, b = (
        ((torch.arange(new, device=labels.device) + 0.5) * (old / new)).long()
        for new, old in zip(sides, labels.shape[1:])
    )
    return labels[:, a[:, None], b]

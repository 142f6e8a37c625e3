"""Boxes of a two-stage detector in 2D: anchors, offsets, overlaps, suppression, features and masks of a box.

What MONAI's `apps.detection` has for this works image by image with as many boxes as there are. Here every function
takes a batch and gives as many boxes for each image, those that are too many marked, so that no image changes another's
result, and a network can be looked at without weights (meta device) and exported.

A box is [a0, b0, a1, b1]: edges along the first and the second side of the image, in pixels from its corner. A pixel
whose index is 3 reaches from 3 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

LONGEST = math.log(1000 / 16)  # log of the largest factor on a side of a box, as in torchvision
NOBODY = float("-inf")  # score of a place that no box has taken


def anchors(
    grids: Sequence[Sequence[int]], sides: Sequence[int], sizes: Sequence[float], ratios: Sequence[float]
) -> Tensor:
    """Boxes around the middle of every cell of every grid, float32 [cells * ratios, 4] on the CPU.

    Args:
        grids: sides of the feature maps, one pair for each of `sizes`.
        sides: of the image in pixels.
        sizes: root of the area of the boxes of a grid.
        ratios: first side of a box over the second. In the order of the result they change first, then the second index
            of the cell, then the first one, then the grid.
    """
    found = []
    for (rows, columns), size in zip(grids, sizes, strict=True):
        a, b = ((torch.arange(n) + 0.5) * (side / n) for n, side in zip((rows, columns), sides))
        middle = torch.stack(torch.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 1, 2)
        half = torch.tensor([[size * ratio**0.5, size / ratio**0.5] for ratio in ratios]) / 2
        found.append(torch.cat([middle - half, middle + half], -1).reshape(-1, 4))
    return torch.cat(found)


def encode(boxes: Tensor, references: Tensor) -> Tensor:
    """Offsets [..., 4] from `references` to `boxes`: of the middle over the sides, and the log of the sides' ratio.

    Ren et al., "Faster R-CNN" (NeurIPS 2015), Equation 2.
    """
    (middle, size), (from_middle, from_size) = _middle_and_size(boxes), _middle_and_size(references)
    return torch.cat([(middle - from_middle) / from_size, (size / from_size).log()], -1)


def decode(offsets: Tensor, references: Tensor, sides: Sequence[int]) -> Tensor:
    """The boxes of `offsets` [..., 4], cut at the edges of an image of these `sides`; each keeps a pixel or more."""
    middle, size = _middle_and_size(references)
    middle = middle + offsets[..., :2] * size
    half = size * offsets[..., 2:].clamp(max=LONGEST).exp() / 2
    low, high = middle - half, middle + half
    a0, b0 = (low[..., axis].clamp(0, side - 1) for axis, side in enumerate(sides))
    a1, b1 = (
        torch.maximum(high[..., axis].clamp(max=side), edge + 1)
        for axis, (side, edge) in enumerate(zip(sides, (a0, b0)))
    )
    return torch.stack([a0, b0, a1, b1], -1)


def _middle_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union [..., N, M] of boxes [..., N, 4] and [..., M, 4]."""
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    both = shared.prod(-1)
    areas = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    return both / (sum(areas) - both).clamp_min(1e-6)


def best(boxes: Tensor, scores: Tensor, number: int, threshold: float, among: int) -> tuple[Tensor, Tensor]:
    """The `number` boxes of each image with the highest scores that do not overlap one with a higher score.

    Greedy non-maximum suppression: from the highest score down, a box is dropped that overlaps one that was kept by
    more than `threshold`.

    Args:
        boxes: [B, N, 4].
        scores: [B, N].
        number: of boxes that are returned, all N at most.
        threshold: of the intersection over union.
        among: boxes of the highest scores that are looked at.

    Returns:
        Boxes [B, number, 4] and their scores [B, number] from the highest down; where suppression leaves fewer, the
        last ones have the score `NOBODY`.
    """
    scores, order = scores.topk(min(among, scores.shape[1]))
    boxes = picked(boxes, order)
    with torch.no_grad():
        over = (overlaps(boxes, boxes) > threshold).triu(1)
        kept = torch.ones_like(scores, dtype=torch.bool)
        for index in range(scores.shape[1]):
            kept = kept & ~(kept[:, index : index + 1] & over[:, index])
    scores, order = scores.masked_fill(~kept, NOBODY).topk(min(number, scores.shape[1]))
    return picked(boxes, order), scores


def picked(values: Tensor, index: Tensor) -> Tensor:
    """Rows [B, K, D] of `values` [B, N, D] at `index` [B, K]."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def roi_align(
    maps: Sequence[Tensor], boxes: Tensor, sides: Sequence[int], sizes: Sequence[float], cells: int
) -> Tensor:
    """Features of boxes, [B * N, C, cells, cells]: linearly interpolated at the middle of each cell of a box.

    He et al., "Mask R-CNN" (ICCV 2017), section 3, with one sample in each cell. A box is read from the map whose
    anchors have the size that is nearest to its own, on a logarithmic scale.

    Args:
        maps: features [B, C, rows, columns] of one image at several scales.
        boxes: [B, N, 4].
        sides: of the image in pixels.
        sizes: of the anchors of each map, increasing.
        cells: in a row.
    """
    count, number = boxes.shape[:2]
    steps = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    low, size = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2]).unsqueeze(-2)
    whole = torch.tensor(sides, device=boxes.device)
    points = (low + steps[:, None] * size) / whole * 2 - 1  # [B, N, cells, 2]
    a = points[..., 0].unsqueeze(-1).expand(-1, -1, cells, cells)
    b = points[..., 1].unsqueeze(-2).expand(-1, -1, cells, cells)
    # grid_sample counts from the last axis.
    grid = torch.stack([b, a], -1).reshape(count, number * cells, cells, 2)
    logs = torch.tensor([math.log(size) for size in sizes], device=boxes.device)
    own = size.squeeze(-2).prod(-1).clamp_min(1e-6).log() / 2
    level = (own.unsqueeze(-1) - logs).abs().argmin(-1).reshape(count, 1, number, 1, 1)
    found: Tensor | int = 0
    for index, features in enumerate(maps):
        read = grid_sample(features.float(), grid, padding_mode="border", align_corners=False)
        read = read.reshape(count, -1, number, cells, cells)
        found = found + read * (level == index)
    assert isinstance(found, Tensor)
    return found.transpose(1, 2).flatten(0, 1)


def paste(masks: Tensor, boxes: Tensor, sides: Sequence[int]) -> Tensor:
    """Masks [B, N, m, m] of boxes [B, N, 4] in images of these `sides`, [B, N, *sides]; 0 outside their boxes."""
    low, size = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2]).unsqueeze(-2)
    a, b = (
        ((torch.arange(side, device=boxes.device) + 0.5) - low[..., axis]) / size[..., axis] * 2 - 1
        for axis, side in enumerate(sides)
    )
    a = a.unsqueeze(-1).expand(-1, -1, *sides)
    b = b.unsqueeze(-2).expand(-1, -1, *sides)
    single, grid = masks.flatten(0, 1).unsqueeze(1), torch.stack([b, a], -1).flatten(0, 1)
    found = grid_sample(single, grid, padding_mode="border", align_corners=False)
    return found.reshape(*masks.shape[:2], *sides) * ((a.abs() <= 1) & (b.abs() <= 1))

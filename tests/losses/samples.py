"""Logits and targets for the tests of the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from fedbrats.tasks.segmentation import targets

SHAPES = {"2D": (6, 5), "3D": (5, 4, 3)}


def sample(
    channels: int, sides: tuple[int, ...] = (5, 4, 3), batch: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random logits float32 and their target (bool), both [batch, channels, *sides]."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, channels, *sides, generator=generator)
    labels = torch.randint(0, 4, (batch, *sides), generator=generator, dtype=torch.uint8)
    return logits, targets(labels, channels)


def logit(p: list[float]) -> Tensor:
    """Logits of sigmoid probabilities."""
    return torch.tensor(p, dtype=torch.float64).logit().float()

"""What the losses share: float32 on both sides, probabilities without the background, one value per sample."""

from __future__ import annotations

import math

from torch import Tensor

from fedbrats.tasks.segmentation import activate, is_softmax


def as_float(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32, because half precision loses the sums of a loss.

    Raises:
        ValueError: their shapes differ.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"loss: logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape."
        )
    return logits.float(), target.float()


def foreground(logits: Tensor, target: Tensor, include_background: bool = False) -> tuple[Tensor, Tensor]:
    """Probabilities and target, float32 [B, C, ...]; softmax classes lose their background unless it is asked for."""
    logits, target = as_float(logits, target)
    probabilities = activate(logits)
    if is_softmax(logits.shape[1]) and not include_background:
        return probabilities[:, 1:], target[:, 1:]
    return probabilities, target


def per_sample(values: Tensor) -> Tensor:
    """Mean of [B, ...] over everything but the batch."""
    return values.mean(dim=tuple(range(1, values.ndim)))


def check_not_negative(key: str, value: float) -> None:
    """Raise ValueError unless loss.`key` is a finite number >= 0."""
    if not (isinstance(value, int | float) and value >= 0 and math.isfinite(value)):
        raise ValueError(f"loss.{key}={value!r}: must be a number >= 0.")

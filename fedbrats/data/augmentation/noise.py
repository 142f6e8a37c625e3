"""Uniform noise on every voxel of the brain."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

AMPLITUDE = 0.1  # largest, in standard deviations


def noise(images: Tensor, labels: Tensor, state: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """The recipe noise, that of UNCE (BrainLes 2021), section 2.3: U(-AMPLITUDE, AMPLITUDE) on each voxel and modality.

    Printed: "uniform white noise with limited amplitude", no number. Background stays 0.

    Args:
        images: float32 [B, 4, *S], S of two or three sides.
        labels: uint8 [B, *S].
        state: what is drawn from.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    drawn = torch.from_numpy(state.uniform(-AMPLITUDE, AMPLITUDE, images.shape)).to(images)
    return (images + drawn).masked_fill_(images == 0, 0), labels.clone()

"""From an image to channel probabilities: sliding windows with Gaussian weights (MONAI), in 3D or slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from fedbrats.data.patches import NORMAL
from fedbrats.tasks.segmentation import activate


def window_logits(
    network: nn.Module, images: Tensor, *, window: Sequence[int], overlap: float, batch: int, amp: bool
) -> Tensor:
    """Logits float32 [B, C, *S] of images [B, 4, *S], with as many sides as `window` (voxels) has.

    Images smaller than the window are padded with background and cropped back by MONAI.
    """
    with torch.inference_mode(), torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=amp):
        logits = sliding_window_inference(
            images, tuple(window), batch, network, overlap=overlap, mode="gaussian", progress=False
        )
    return logits.float()


def volume_probabilities(
    network: nn.Module, image: Tensor, *, window: Sequence[int], overlap: float, batch: int, amp: bool
) -> Tensor:
    """Channel probabilities float32 [C, X, Y, Z] of an image [4, X, Y, Z], by windows of three sides."""
    options: dict[str, Any] = {"window": window, "overlap": overlap, "batch": batch, "amp": amp}
    return activate(window_logits(network, image.unsqueeze(0), **options))[0]


def slice_probabilities(
    network: nn.Module,
    image: Tensor,
    plane: str,
    *,
    window: Sequence[int],
    overlap: float,
    batch: int,
    amp: bool,
) -> Tensor:
    """Channel probabilities float32 [C, X, Y, Z] of an image [4, X, Y, Z], slice by slice, put back into a volume.

    Args:
        network: 2D.
        image: float32, on the network's device.
        plane: axial, coronal or sagittal.
        window: two sides in voxels.
        overlap: of windows within a slice.
        batch: windows at a time.
        amp: bf16 autocast.
    """
    axis = NORMAL[plane]
    slices = image.movedim(axis + 1, 0)  # [slices, 4, A, B]
    options: dict[str, Any] = {"window": window, "overlap": overlap, "batch": batch, "amp": amp}
    found = [activate(window_logits(network, part, **options)) for part in slices.split(batch)]
    return torch.cat(found).movedim(0, axis + 1)

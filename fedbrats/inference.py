"""From a cached case to a segmentation: sliding-window inference with Gaussian weights (MONAI)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from fedbrats.data.regions import labels_from_regions


def predict_logits(
    network: nn.Module,
    image: np.ndarray,
    *,
    window: Sequence[int],
    overlap: float,
    batch: int,
    device: torch.device,
    amp: bool,
) -> Tensor:
    """Region logits float32 [3, X, Y, Z] of one image [4, X, Y, Z] (any float dtype), on `device`.

    Volumes smaller than `window` (voxels) are padded with background and cropped back by MONAI.
    """
    inputs = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).unsqueeze(0).to(device)
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
        logits = sliding_window_inference(
            inputs, tuple(window), batch, network, overlap=overlap, mode="gaussian", progress=False
        )
    return logits[0].float()


def logits_to_labels(logits: Tensor) -> np.ndarray:
    """Canonical labels uint8 [X, Y, Z]: each region's sigmoid at 0.5, conflicts settled by `labels_from_regions`."""
    return labels_from_regions((logits > 0).cpu().numpy())

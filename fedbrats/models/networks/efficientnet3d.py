"""EfficientNet in 3D (3D/Multiscale EfficientNet for brain lesions, BrainLes 2021), a classifier of whole cases.

Section 4.3 of that paper. The classifier beside the multi-plane UNet++ ensemble of the same volume prints the same B0
(its Table 1), but trains one network per sequence (`+model.input.modalities=[t1ce]`) at the rate 1e-3, with rotations
alone, and averages the scores of the four.

Where the print is silent: see conf/model/efficientnet3d.yaml and "What is not as printed" in models/README.md.
"""

from __future__ import annotations

from typing import Any

from monai.networks.nets.efficientnet import EfficientNet

from fedbrats.models.efficientnet import efficientnet


def efficientnet3d(in_channels: int = 4, out_channels: int = 1, **settings: Any) -> EfficientNet:
    """EfficientNet with all convolutions in 3D, B0 as printed.

    Takes float [batch, in_channels, X, Y, Z] and returns logits [batch, out_channels].

    Args:
        in_channels: modalities.
        out_channels: 1.
        settings: `width`, `depth`, `stages`, `norm`, `momentum`, `dropout` and `drop_connect` of
            `fedbrats.models.efficientnet.efficientnet`.

    Raises:
        ValueError: unknown `norm`, or `stages` out of range.
    """
    return efficientnet(3, in_channels, out_channels, **settings)

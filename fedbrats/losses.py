"""Training losses on region logits.

Every loss takes logits and targets of shape [batch, region, ...] and may return one value per patch or their mean;
the trainer averages. Losses of MONAI can be named directly in `conf/loss`, as long as they treat the regions as
independent sigmoid channels: WT, TC and ET overlap, so a softmax over them is wrong.
"""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class DiceCE(nn.Module):
    """Soft Dice plus cross-entropy of each region, one value per patch.

    MONAI's `DiceCELoss` is not used: for more than one channel its cross-entropy is a softmax over the channels,
    which makes the nested regions compete with each other.
    """

    def __init__(self, dice: float = 1.0, cross_entropy: float = 1.0, squared: bool = False) -> None:
        """Weights of the two parts; `squared` squares the terms of the Dice denominator (nnU-Net, V-Net)."""
        super().__init__()
        if dice < 0 or cross_entropy < 0 or dice + cross_entropy == 0:
            raise ValueError("loss.dice and loss.cross_entropy must be >= 0 and not both zero.")
        self.weights = (dice, cross_entropy)
        self.dice = DiceLoss(sigmoid=True, squared_pred=squared, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each patch, float [batch]; `logits` and `target` are [batch, region, ...]."""
        target = target.to(logits.dtype)
        dice = self.dice(logits, target).flatten(1).mean(1)
        entropy = binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)
        return self.weights[0] * dice + self.weights[1] * entropy


def region_targets(labels: Tensor) -> Tensor:
    """Region channels [batch, 3, ...] (bool) of canonical labels [batch, ...] on the labels' device.

    The torch twin of `regions.regions_from_labels`; a test holds the two together.
    """
    from fedbrats.data.regions import BACKGROUND, ET, NCR

    return torch.stack([labels != BACKGROUND, (labels == NCR) | (labels == ET), labels == ET], dim=1)

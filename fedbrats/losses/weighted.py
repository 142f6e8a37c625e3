"""Cross-entropy and Dice with a weight for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fedbrats.losses.channels import as_float, check_not_negative
from fedbrats.losses.dice import SMOOTH
from fedbrats.tasks.segmentation import CLASS, REGION, activate, is_softmax


class WeightedCEDice(nn.Module):
    """`share` times weighted binary cross-entropy plus (1 - `share`) times weighted Dice, a mean over the channels.

    COTRNet (BrainLes 2021), Equations 1 to 3, which calls it topology-aware where the channels are nested regions, and
    MSFR-Net (BrainLes 2021), Equations 1 to 3, on exclusive classes:

        WCE = -1/C sum_c w_c mean_j [y_jc log p_jc + (1 - y_jc) log(1 - p_jc)]
        WDice = 1/C sum_c w_c (1 - 2 sum_j y_jc p_jc / sum_j (y_jc + p_jc))

    Both print the cross-entropy without its minus sign and as a sum over the pixels, which at 224x224 would outweigh
    Dice by ten thousand times; here it is their mean. p is a softmax over exclusive classes and a sigmoid for each
    region, whose two halves are then the usual binary cross-entropy.
    """

    def __init__(self, share: float, classes: Sequence[float], regions: Sequence[float]) -> None:
        """Choose the weights.

        Args:
            share: of the cross-entropy, lambda of COTRNet and theta of MSFR-Net.
            classes: w of background, NCR, ED and ET, for softmax outputs.
            regions: w of WT, TC and ET, for sigmoid outputs; of WT alone where the network has one.

        Raises:
            ValueError: `share` outside [0, 1], another number of weights, a negative one, or all zero.
        """
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"loss.share={share}: must lie in [0, 1].")
        for key, weights, number in (("classes", classes, CLASS), ("regions", regions, REGION)):
            if len(weights) != number:
                raise ValueError(f"loss.{key}={list(weights)}: {number} weights are needed.")
            for index, weight in enumerate(weights):
                check_not_negative(f"{key}[{index}]", weight)
            if not any(weights):
                raise ValueError(f"loss.{key}={list(weights)}: not all may be zero.")
        self.share = float(share)
        self.dice = DiceLoss(smooth_nr=SMOOTH, smooth_dr=SMOOTH, reduction="none")
        self.classes, self.regions = tuple(map(float, classes)), tuple(map(float, regions))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        logits, target = as_float(logits, target)
        channels = logits.shape[1]
        weights = logits.new_tensor(self.classes if is_softmax(channels) else self.regions[:channels])
        yes, no = _log_probabilities(logits)
        entropy = -(target * yes + (1 - target) * no).flatten(2).mean(2)
        dice = self.dice(activate(logits), target).flatten(1)
        return (weights * (self.share * entropy + (1 - self.share) * dice)).mean(1)


def _log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p) of [B, C, ...], which stay finite where p is 0 or 1 in float32."""
    if not is_softmax(logits.shape[1]):
        return logsigmoid(logits), logsigmoid(-logits)
    yes = logits.log_softmax(1)
    others = [yes[:, [k for k in range(CLASS) if k != c]].logsumexp(1) for c in range(CLASS)]
    return yes, torch.stack(others, 1)

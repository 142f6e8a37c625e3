"""Overlap losses: soft Dice, Generalised Dice and Tversky, each 0 when perfect and 1 without overlap."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss, TverskyLoss
from torch import Tensor, nn

from fedbrats.losses.channels import check_not_negative, foreground, per_sample

SMOOTH = 1e-5  # voxels, in numerator and denominator; MONAI's own default


class Dice(nn.Module):
    """Soft Dice loss, MONAI's, as the mean over regions or classes of 1 - 2 sum(p t) / (sum p + sum t).

    Ma (BrainLes 2021, Equation 2) prints one ratio with its sums taken over all classes. As in nnU-Net, which that
    paper trains, it is one ratio per channel here, so that a small region counts as much as a large one.
    """

    def __init__(self, squared: bool = False, include_background: bool = False) -> None:
        """Choose the variant.

        Args:
            squared: squares p and t in the denominator (V-Net).
            include_background: whether the background of softmax outputs counts as a class; by default it does not,
                as in nnU-Net's region practice. Sigmoid regions have none.
        """
        super().__init__()
        self.include_background = include_background
        self.dice = DiceLoss(squared_pred=squared, smooth_nr=SMOOTH, smooth_dr=SMOOTH, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        return per_sample(self.dice(*foreground(logits, target, self.include_background)))


class GeneralizedDice(nn.Module):
    """Generalised Dice loss (Sudre et al., DLMIA 2017): 1 - 2 sum_c w_c sum(p t) / sum_c w_c sum(p + t).

    The weight of a channel is its volume to the power of -`power`, taken relative to the smallest volume present in
    the sample; the ratio does not change by that. An empty channel has the largest weight.

    MONAI's loss of this name is not used. Its weights are absolute, so its smoothing of 1e-5 is as large as the sums
    of a region of 1e5 voxels (w = 1e-10), and a sample without any region costs 0 whatever is predicted, so false
    positives there would never be unlearned. On small volumes that are all present both agree, which a test shows.
    """

    def __init__(self, power: float = 2.0, include_background: bool = True) -> None:
        """Choose the weights.

        Args:
            power: 2 is Sudre et al.; 1 is "the inverse of its volume" of Modified UNet (BrainLes 2021).
            include_background: whether the background of softmax outputs counts as a class, as in Sudre et al.

        Raises:
            ValueError: `power` is negative.
        """
        super().__init__()
        check_not_negative("power", power)
        self.power, self.include_background = power, include_background

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        p, t = (x.flatten(2) for x in foreground(logits, target, self.include_background))
        volumes = t.sum(2)
        smallest = volumes.where(volumes > 0, torch.inf).amin(1, keepdim=True)
        weights = (smallest / volumes).pow(self.power).where(volumes > 0, 1.0)
        overlap = (weights * (p * t).sum(2)).sum(1)
        total = (weights * (p.sum(2) + volumes)).sum(1)
        return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)


class Tversky(nn.Module):
    """Tversky loss (Salehi et al., MLMI 2017), MONAI's: the mean of 1 - TP / (TP + alpha FP + beta FN).

    alpha = beta = 0.5 is Dice. beta > alpha prefers a false positive to a missed voxel.
    """

    def __init__(self, alpha: float = 0.3, beta: float = 0.7, include_background: bool = False) -> None:
        """Choose the weights.

        Args:
            alpha: weight of false positives.
            beta: weight of false negatives.
            include_background: whether the background of softmax outputs counts as a class.

        Raises:
            ValueError: a weight is negative, or both are zero.
        """
        super().__init__()
        check_not_negative("alpha", alpha)
        check_not_negative("beta", beta)
        if alpha + beta == 0:
            raise ValueError("loss.alpha and loss.beta: not both may be zero.")
        self.include_background = include_background
        self.tversky = TverskyLoss(
            alpha=alpha, beta=beta, smooth_nr=SMOOTH, smooth_dr=SMOOTH, reduction="none"
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        return per_sample(self.tversky(*foreground(logits, target, self.include_background)))

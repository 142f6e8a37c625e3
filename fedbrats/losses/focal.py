"""Focal loss (Lin et al., ICCV 2017)."""

from __future__ import annotations

from monai.losses import FocalLoss
from torch import Tensor, nn

from fedbrats.losses.channels import as_float, check_not_negative, per_sample
from fedbrats.tasks.segmentation import is_softmax


class Focal(nn.Module):
    """Cross-entropy times (1 - p_t)^gamma with p_t the probability of the truth, MONAI's; the mean over voxels.

    Jonsson (Eq. 3) prints -alpha ((1 - Y)(1 - P)^gamma log(1 - P) + Y P^gamma log P). That modulating factor is
    p_t^gamma: the surer the right answer, the more it would weigh, and a lesion voxel would cost nothing again as
    P -> 0. The text beside it and the reference it cites, Lin et al., want the opposite, so (1 - p_t)^gamma is used.
    The alpha printed there is one factor on all voxels ("gamma = 0 and alpha = 1 would be the usual binary cross
    entropy"); that of Lin et al. weighs lesion against the rest. `balanced` says which.
    """

    def __init__(self, alpha: float | None = 0.25, gamma: float = 2.0, balanced: bool = True) -> None:
        """Choose the factors.

        Args:
            alpha: in [0, 1]; None is 1 for all voxels.
            gamma: 0 is cross-entropy.
            balanced: true gives lesion `alpha` and the rest 1 - `alpha` (Lin et al.), false gives all voxels `alpha`.

        Raises:
            ValueError: a value is out of range.
        """
        super().__init__()
        check_not_negative("gamma", gamma)
        if 0 < gamma < 1:
            # The softmax form differentiates (1 - p_t)^gamma, which has no finite slope at p_t = 1 then.
            raise ValueError(
                f"loss.gamma={gamma}: must be 0 or at least 1, else a sure voxel gives no gradient."
            )
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"loss.alpha={alpha}: must lie in [0, 1], or null.")
        self.factor = 1.0 if alpha is None or balanced else alpha
        options = {"gamma": gamma, "alpha": alpha if balanced else None, "reduction": "none"}
        self.sigmoid, self.softmax = FocalLoss(**options), FocalLoss(use_softmax=True, **options)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        logits, target = as_float(logits, target)
        if is_softmax(logits.shape[1]):
            # Only the true class of a voxel has a value, so its classes are summed, not averaged.
            return self.factor * per_sample(self.softmax(logits, target).sum(1))
        return self.factor * per_sample(self.sigmoid(logits, target))

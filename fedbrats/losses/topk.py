"""Cross-entropy of the worst voxels."""

from __future__ import annotations

from torch import Tensor, nn

from fedbrats.losses.cross_entropy import voxel_cross_entropy


class TopK(nn.Module):
    """Mean cross-entropy over the `share` of a sample's voxels that have the largest (Ma, BrainLes 2021, Equation 3).

    Printed is 1/N with N the number of voxels, so the sum over the worst ones is divided by all. Here, as in nnU-Net,
    it is divided by the number of the worst; a weight of `share` gives the printed figure. With sigmoid regions every
    region of every voxel is one candidate, so a hard region may take the whole share. nnU-Net ranks the voxels of the
    batch together; here each sample is ranked by itself, because its value must depend on that sample alone.
    """

    def __init__(self, share: float = 0.10) -> None:
        """Choose the share of voxels, rounded to a whole number of at least one.

        Raises:
            ValueError: `share` lies outside (0, 1].
        """
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"loss.share={share}: must lie in (0, 1], a share of the voxels.")
        self.share = share

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        values = voxel_cross_entropy(logits, target).flatten(1)
        worst = max(1, round(self.share * values.shape[1]))
        return values.topk(worst, dim=1, sorted=False).values.mean(1)

"""A loss that follows the Hausdorff distance (Karimi and Salcudean, IEEE TMI 2020), by distance transforms."""

from __future__ import annotations

from monai.losses import HausdorffDTLoss
from torch import Tensor, nn

from fedbrats.losses.channels import check_not_negative, foreground, per_sample


class Hausdorff(nn.Module):
    """Mean over voxels and channels of (p - t)^2 (d_p^power + d_t^power), Karimi and Salcudean's by distances.

    d_p and d_t are the distances of a voxel to the boundary of what is predicted (p above 0.5) and of the truth, on
    either side of it. An error far from both boundaries costs most, and those are the ones that the Hausdorff distance
    sees. Distances are MONAI's (`HausdorffDTLoss`), to the nearest voxel of the other side, divided by the largest of
    the patch: in voxels they would outweigh Dice, in a large patch by far; the first authors weigh by the ratio of both
    losses instead. An empty region and one that fills the patch have no boundary and a distance of 0, so this loss
    needs another one beside it, such as Dice. Distances are found on the CPU, without gradient, for every region of the
    prediction and of the truth in every step: some tenths of a second each in a patch of 96x96x96.

    Softmax classes count one by one without the background.
    """

    def __init__(self, power: float = 2.0) -> None:
        """`power` of the distances; 2 is the first authors' choice.

        Raises:
            ValueError: `power` is negative.
        """
        super().__init__()
        check_not_negative("power", power)
        self.power = power

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        p, t = foreground(logits, target)
        weights = _distances(p.detach()) ** self.power + _distances(t) ** self.power
        return per_sample((p - t) ** 2 * weights)


def _distances(values: Tensor) -> Tensor:
    """Of every voxel of [B, C, *S] to the other side of the boundary at 0.5, each channel divided by its largest."""
    channels = values.flatten(0, 1).unsqueeze(
        1
    )  # MONAI looks for an empty mask in all channels of a sample at once
    found = HausdorffDTLoss().distance_field(channels).reshape(values.shape)
    largest = found.flatten(2).amax(2).clamp(min=1)
    return found / largest.reshape(*largest.shape, *(1,) * (values.ndim - 2))

"""A loss of a site that has no labels for some regions: nothing is learnt where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from fedbrats.data.regions import REGIONS

SURE = 20.0  # logit of a prediction that no loss here tells from a perfect one

Loss = Callable[[Tensor, Tensor], Tensor]


def labelled_only(loss: Loss, missing: Collection[str]) -> Loss:
    """`loss` of logits and target [B, C, ...] in which the channels of the regions `missing` are as good as perfect.

    What the network says there is replaced by the target itself, so they add next to nothing to the loss, nothing to
    its gradient, and means over channels still divide by all of them. The channels are those of `REGIONS`.
    """
    if not missing:
        return loss
    unknown = torch.tensor([region in missing for region in REGIONS])

    def of(logits: Tensor, target: Tensor) -> Tensor:
        mask = unknown[: logits.shape[1]].to(logits.device).reshape(1, -1, *[1] * (logits.ndim - 2))
        sure = (SURE * (2 * target.to(logits.dtype) - 1)).detach()
        return loss(torch.where(mask, sure, logits), target)

    return of

"""One loss over all that a network gives in training: logits at several resolutions, and terms of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fedbrats.losses.nodes import is_of_nodes
from fedbrats.losses.semantic import is_presence, presence
from fedbrats.tasks.segmentation import CLASS, targets

Term = Callable[[Tensor], Tensor]  # of canonical labels [B, ...], one value per sample [B]


def deep_supervised(
    loss: Callable[[Tensor, Tensor], Tensor],
    outputs: Tensor | Sequence[Tensor | Term],
    labels: Tensor,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Loss of the logits against canonical labels, float32 [B], or a scalar where `loss` returns one.

    Each output is compared at its own size; the labels come down to it by nearest neighbour, so they stay labels. An
    output of one voxel says which channels are anywhere in the patch (`semantic.WithPresence`). One of five channels
    speaks of supervoxels and is compared with the classes (`nodes.WithNodes`). An output [B] is a term of the loss that
    the network has worked out by itself, such as the error of an autoencoder on its images: it is taken as it is, and
    not shown to `loss`. An output that is a function gives such a term for the labels, where what the network says is
    no picture of them, such as boxes.

    Args:
        loss: of logits and target [B, C, ...].
        outputs: logits [B, C, ...], or several, full resolution first; and terms [B], or functions of
            labels that give them.
        labels: uint8 [B, ...] at full resolution.
        weights: of the outputs, scaled to sum 1; None halves them from one to the next (nnU-Net). An output of
            weight 0 is left out.

    Raises:
        ValueError: not one weight per output, a negative one, none above 0, `loss` returns another shape, or a term of
            the network has not one value per sample.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    shares = _shares(weights, len(outputs))
    values = [
        share * _value(loss, (output if isinstance(output, Tensor) else output(labels)).float(), labels)
        for share, output in zip(shares, outputs, strict=True)
        if share > 0
    ]
    return sum(values[1:], start=values[0])


def _shares(weights: Sequence[float] | None, outputs: int) -> list[float]:
    weights = [0.5**i for i in range(outputs)] if weights is None else list(weights)
    if len(weights) != outputs or not all(w >= 0 for w in weights) or not any(weights):
        raise ValueError(
            f"train.deep_supervision={weights}: {outputs} weights >= 0 are needed, one per output of the network in "
            "training, not all zero; null halves them."
        )
    return [w / sum(weights) for w in weights]


def _value(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim < 2:
        if logits.shape != (len(labels),):
            raise ValueError(
                f"loss: the network gives a term of its own of shape {tuple(logits.shape)} for {len(labels)} samples; "
                "it must have one value per sample, which no other sample changes."
            )
        return logits
    if is_presence(logits):
        target = presence(labels, logits)
    else:
        channels = CLASS if is_of_nodes(logits) else logits.shape[1]
        target = targets(_at_size(labels, logits.shape[2:]), channels).float()
    value = loss(logits, target)
    if value.shape not in ((), (len(logits),)):
        raise ValueError(
            f"loss: gives an array {tuple(value.shape)}; it must return one value per sample or their mean "
            "(for a loss of MONAI set reduction: mean)."
        )
    return value


def _at_size(labels: Tensor, sides: torch.Size) -> Tensor:
    if labels.shape[1:] == sides:
        return labels
    # As float, which every version and device can interpolate; labels are small whole numbers.
    return (
        interpolate(labels.unsqueeze(1).float(), size=tuple(sides), mode="nearest")
        .squeeze(1)
        .to(labels.dtype)
    )

"""The way to the server in half the bytes (`strategy.transfer=fp16`): changes in float16, with error feedback.

A site sends what its training has changed, not the weights: a change is small, and float16 has 11 bits of it. What the
rounding took away is kept at the site and added to the change of its next round (Seide et al., Interspeech 2014;
Karimireddy et al., ICML 2019, Algorithm 1), so that nothing is lost for good: the sum of what was sent stays within one
rounding of the sum of what was trained. The way down stays as it is, since every site must get the same model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from fedbrats.arrays import Signature

FULL, HALF = "float32", "float16"
LARGEST = 65504.0  # of float16


def halved(
    trained: Mapping[str, Tensor], received: Mapping[str, np.ndarray], kept: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is sent for the trained arrays, and what of their change is kept for the next round; on the CPU.

    Args:
        trained: arrays after the round.
        received: the same before it.
        kept: what the last round kept, {} at first.

    Returns:
        Changes by name: float16, or float32 where a value is beyond float16, as that of a running variance may be; an
        array that is not float32 goes as it is. And what is kept, of those that go in float16.
    """
    sent, left = dict[str, Tensor](), dict[str, Tensor]()
    for name, tensor in trained.items():
        after = tensor.detach().to("cpu").contiguous()
        if after.dtype != torch.float32:
            sent[name] = after
            continue
        change = after - torch.from_numpy(received[name])
        change += kept.get(name, 0.0)
        if bool((change.abs() <= LARGEST).all()):
            sent[name] = change.to(torch.float16)
            left[name] = change - sent[name].to(torch.float32)
        else:  # NaN too, which the server refuses by name
            sent[name] = change
    return sent, left


def forms(expected: Signature, record: ArrayRecord) -> Signature:
    """The arrays that a reply of changes must hold: those `expected`, in half where the reply says so."""
    return {
        name: (shape, HALF if dtype == FULL and name in record and record[name].dtype == HALF else dtype)
        for name, (shape, dtype) in expected.items()
    }


def restored(model: Mapping[str, Tensor], changes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a site from the model that it was sent and its changes."""
    return {
        name: model[name].numpy() + change.astype(np.float32)
        if model[name].dtype == torch.float32
        else change
        for name, change in changes.items()
    }

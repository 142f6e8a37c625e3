"""The way to the server in fewer bytes (`strategy.transfer`): what training has changed, in half or only its largest.

A site sends what its training has changed, not the weights. `fp16`: a change is small, and float16 has 11 bits of it.
`top_k`: of every trained array the `strategy.transfer_share` of its changes that are largest, with their places
(Aji and Heafield, EMNLP 2017; Lin et al., ICLR 2018). Of both, what is left out stays at the site and is added to the
change of its next round (error feedback: Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019, Algorithm 1),
so that nothing is lost for good. `partial`: the same places as `top_k`, and the rest is forgotten (Shokri and
Shmatikov, CCS 2015; Li et al., MLMI 2019, who leave out up to 40 % of BraTS models). The way down stays as it is, since
every site must get the same model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from fedbrats.algorithms.base import FP16, SPARSE, Transfer
from fedbrats.arrays import BadArrays, Signature, read_only

FULL, HALF, PLACE = "float32", "float16", "int32"
LARGEST = 65504.0  # of float16
PLACES = "/places"  # after the name of an array: where in it, flattened, the changes that are sent belong


def sent_changes(
    transfer: Transfer,
    trained: Mapping[str, Tensor],
    received: Mapping[str, np.ndarray],
    kept: Mapping[str, Tensor],
    names: Collection[str],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is sent for the arrays of a site, and what of their change is kept for the next round; on the CPU.

    Args:
        transfer: one with `changes`.
        trained: arrays after the round.
        received: the same before it.
        kept: what the last round kept, {} at first.
        names: of those that are trained; of others, as running statistics, no change is left out.

    Returns:
        Changes by name: float16, or float32 where a value is beyond float16, as that of a running variance may be;
        with a share, float32 [k] and under the name with `PLACES` int32 [k], ascending. An array that is not float32
        goes as it is. And what is kept.
    """
    sent, left = dict[str, Tensor](), dict[str, Tensor]()
    for name, tensor in trained.items():
        after = tensor.detach().to("cpu").contiguous()
        if after.dtype != torch.float32:
            sent[name] = after
            continue
        change = after - read_only(received[name])
        if transfer.keeps:
            change += kept.get(name, 0.0)
        if transfer.kind in SPARSE and name in names:
            sent[name], sent[name + PLACES], rest = _largest(change, transfer.number(change.numel()))
            left |= {name: rest} if transfer.keeps else {}
        elif transfer.kind == FP16 and bool((change.abs() <= LARGEST).all()):
            sent[name] = change.to(torch.float16)
            left[name] = change - sent[name].to(torch.float32)
        else:  # NaN too, which the server refuses by name
            sent[name] = change
    return sent, left


def _largest(change: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `number` largest values, their places, and the change without them."""
    flat = change.flatten()
    places = flat.abs().topk(number, sorted=False).indices.sort().values
    rest = flat.clone()
    rest[places] = 0
    return flat[places], places.to(torch.int32), rest.reshape(change.shape)


def forms(
    transfer: Transfer, expected: Signature, names: Collection[str], record: ArrayRecord | None = None
) -> Signature:
    """The arrays that a reply of changes must hold.

    Args:
        transfer: one with `changes`.
        expected: the agreed arrays.
        names: of those that are trained.
        record: the reply, whose `fp16` may be float32 where a value is beyond it.
    """
    found: Signature = {}
    for name, (shape, dtype) in expected.items():
        if dtype == FULL and transfer.kind in SPARSE and name in names:
            number = transfer.number(math.prod(shape))
            found[name], found[name + PLACES] = ((number,), FULL), ((number,), PLACE)
            continue
        halved = record is not None and name in record and record[name].dtype == HALF
        found[name] = shape, HALF if dtype == FULL and transfer.kind == FP16 and halved else dtype
    return found


def restored(model: Mapping[str, Tensor], changes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a site from the model that it was sent and its changes.

    Raises:
        BadArrays: places that are not ascending places of their array.
    """
    found = {}
    for name, change in changes.items():
        if name not in model:
            continue  # places, which come with what belongs there
        if model[name].dtype != torch.float32:
            found[name] = change
        elif name + PLACES in changes:
            found[name] = _scattered(name, model[name].numpy(), change, changes[name + PLACES])
        else:
            found[name] = model[name].numpy() + change.astype(np.float32)
    return found


def _scattered(name: str, old: np.ndarray, change: np.ndarray, places: np.ndarray) -> np.ndarray:
    if places[0] < 0 or places[-1] >= old.size or not (np.diff(places) > 0).all():
        raise BadArrays(f"{name}: places that are not ascending places in an array of {old.size}")
    new: np.ndarray = old.flatten()
    new[places] += change
    return new.reshape(old.shape)

"""The arrays of a network that are exchanged: which they are, their shapes and types, how they get back in.

They are every parameter once (a network may register one under several names) and every floating-point buffer; integer
counters such as BatchNorm's `num_batches_tracked` stay where they are, because their mean is meaningless.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

Signature = dict[str, tuple[tuple[int, ...], str]]  # shape and dtype by name


class BadArrays(ValueError):
    """Arrays that do not match the agreed list; the message says which and why."""


def travelling(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of `network` that travel, by name, in the order of registration; aliases appear once."""
    tensors: dict[str, Tensor] = dict(network.named_parameters())
    if statistics := {n: b for n, b in network.named_buffers() if b.is_floating_point()}:
        persistent = network.state_dict(keep_vars=True).keys()
        tensors |= {n: b for n, b in statistics.items() if n in persistent}
    return tensors


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Those of `travelling` that are trained; the others are running statistics, or frozen."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def signature(tensors: Mapping[str, Tensor | np.ndarray]) -> Signature:
    """Shape and dtype of every array, by name."""
    return {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}


def fingerprint(expected: Signature, stays: Sequence[str] = ()) -> str:
    """Short hash of a signature, whatever its order: server and site compare it before the first round.

    `stays` are the arrays among them that both agree never to send.
    """
    rows = sorted([name, list(shape), dtype] for name, (shape, dtype) in expected.items())
    text = json.dumps([rows, sorted(stays)] if stays else rows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The values of a tensor on the CPU: NumPy's own view, but bfloat16, which NumPy has not, exactly as float32."""
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def like(tensors: Mapping[str, Tensor], expected: Signature) -> dict[str, Tensor]:
    """`tensors` with the dtypes that `expected` has for their names."""
    return {name: tensor.to(getattr(torch, expected[name][1])) for name, tensor in tensors.items()}


def read_only(array: np.ndarray) -> Tensor:
    """`array` as a tensor that shares its memory and must not be written: that of a message lies in the message."""
    return all_read_only({"": array})[""]


def all_read_only(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The same of many, in a fifth of the time: most of it is to keep torch from warning of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def require_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise BadArrays naming the first array that holds NaN or infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in arrays.items():
            # The sum of finite values is finite short of overflow, and costs one pass without a mask.
            if not math.isfinite(array.sum()) and not np.isfinite(array).all():
                raise BadArrays(f"{name}: non-finite values")


def load(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` into the travelling tensors of `network`.

    Raises:
        BadArrays: the names are not exactly those that travel.
    """
    own = travelling(network)
    if own.keys() != arrays.keys():
        raise BadArrays(f"the network has {len(own)} travelling arrays, {len(arrays)} were given")
    given = all_read_only(arrays)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


def stored(tensor: Tensor) -> Tensor:
    """A copy of `tensor` on the CPU, contiguous, as a file holds it."""
    return tensor.detach().to("cpu", copy=True).contiguous()

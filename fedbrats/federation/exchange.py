"""What travels between a site and the server: an explicit list of named arrays, checked on both ends.

The list holds every parameter once (a network may register one under several names) and every floating-point
buffer; integer counters such as BatchNorm's `num_batches_tracked` stay where they are, because their mean is
meaningless.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

HEADER_BYTES = 4096  # more than any .npy header we accept
Signature = dict[str, tuple[tuple[int, ...], str]]

# Decoded arrays are read-only views; nothing here writes to them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class BadArrays(ValueError):
    """Arrays that do not match the agreed list; the message says which and why."""


def travelling(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of `network` that travel, by name, in the order of registration; aliases appear once."""
    persistent = network.state_dict(keep_vars=True).keys()
    tensors: dict[str, Tensor] = dict(network.named_parameters())
    tensors |= {n: b for n, b in network.named_buffers() if n in persistent and b.is_floating_point()}
    return tensors


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


@functools.lru_cache(maxsize=4096)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def to_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Flower's record of the tensors (NumPy's .npy bytes, one copy of each tensor)."""
    record = ArrayRecord()
    for name, tensor in tensors.items():
        array = tensor.detach().to("cpu").contiguous().numpy()
        header = _npy_header(str(array.dtype), array.shape)
        data = b"".join((header, array.reshape(-1).view(np.uint8).data))
        record[name] = Array(str(array.dtype), array.shape, "numpy.ndarray", data)
    return record


def _decode(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    header = _npy_header(dtype, shape)
    expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    data = memoryview(array.data)
    if len(data) > expected + HEADER_BYTES:
        raise BadArrays(f"{name}: {len(data)} bytes, expected about {expected}")
    if bytes(data[: len(header)]) != header:
        found = f"shape {tuple(array.shape)} and dtype {array.dtype}"
        raise BadArrays(f"{name}: {found} as declared, expected shape {shape} and dtype {dtype}")
    if len(data) != len(header) + expected:
        raise BadArrays(f"{name}: {len(data) - len(header)} bytes of values, expected {expected}")
    return np.frombuffer(data, dtype=dtype, offset=len(header)).reshape(shape)


def from_record(record: ArrayRecord, expected: Signature) -> dict[str, np.ndarray]:
    """Read-only views of the arrays of `record`, in the order of `expected`.

    Only plain C-order .npy bytes of exactly the agreed shape and dtype are accepted, and their length is compared
    before anything is allocated, so that neither a pickle nor a forged header is ever decoded.

    Raises:
        BadArrays: missing or extra names, other shape or dtype (a broadcastable one too), wrong length.
    """
    missing, extra = expected.keys() - record.keys(), record.keys() - expected.keys()
    if missing or extra:
        raise BadArrays(f"missing arrays {sorted(missing)[:3]}, unexpected arrays {sorted(extra)[:3]}")
    return {name: _decode(name, record[name], shape, dtype) for name, (shape, dtype) in expected.items()}


def require_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise BadArrays naming the first array that holds NaN or infinity."""
    for name, array in arrays.items():
        # The sum of finite values is finite short of overflow, and costs one pass without a mask.
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(array.sum()) and not np.isfinite(array).all():
                raise BadArrays(f"{name}: non-finite values")


def load(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` into the travelling tensors of `network`.

    Raises:
        BadArrays: the names are not exactly those that travel.
    """
    own = travelling(network)
    if own.keys() != arrays.keys():
        raise BadArrays(f"the network has {len(own)} travelling arrays, {len(arrays)} were given")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(arrays[name]))


def size_bytes(record: ArrayRecord) -> int:
    """Bytes of the arrays of `record` on the wire."""
    return sum(len(array.data) for array in record.values())

"""How arrays travel between a site and the server: Flower's records of plain .npy bytes, checked on both ends.

NumPy has no bfloat16: its bits travel as uint16, and come out as the same numbers in float32.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from fedbrats.arrays import BadArrays, Signature, read_only

HEADER_BYTES = 4096  # more than any .npy header we accept

BFLOAT16 = "bfloat16"
# Record of a reply to train: the scores of the model that came, where they were asked for.
VALIDATION = "validation"
PROGRESS = "progress"  # and of one: the loss of its own validation cases before and after it has trained
NUMBER = "algorithm-"  # before the names of the numbers that an algorithm tells with a question to train


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
        plain = tensor.detach().to("cpu")
        values = (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy()
        array = np.ascontiguousarray(values).reshape(values.shape)  # of channels last in half of torch's time
        dtype = str(plain.dtype).removeprefix("torch.")
        header = _npy_header(_sent_as(dtype), array.shape)
        data = b"".join((header, array.reshape(-1).view(np.uint8).data))
        record[name] = Array(dtype, array.shape, "numpy.ndarray", data)
    return record


def _sent_as(dtype: str) -> str:
    """The dtype of the .npy bytes of an array."""
    return "uint16" if dtype == BFLOAT16 else dtype


def _from_bits(bits: np.ndarray) -> np.ndarray:
    """The numbers whose bfloat16 bits (uint16) are given, as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def own_tensor(array: Array) -> Tensor:
    """A copy of an array that this process itself made by `to_record`."""
    found = read_only(numbers(array))
    return found.to(torch.bfloat16) if array.dtype == BFLOAT16 else found.clone()


def numbers(array: Array) -> np.ndarray:
    """A read-only view of the numbers of an array that is what it declares, of bfloat16 a copy in float32.

    Raises:
        BadArrays: it is not.
    """
    return _decode("an array", array, tuple(array.shape), array.dtype)


def _decode(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    sent = _sent_as(dtype)
    header = _npy_header(sent, shape)
    expected = math.prod(shape) * np.dtype(sent).itemsize
    data = memoryview(array.data)
    if len(data) > expected + HEADER_BYTES:
        raise BadArrays(f"{name}: {len(data)} bytes, expected about {expected}")
    if bytes(data[: len(header)]) != header:
        found = f"shape {tuple(array.shape)} and dtype {array.dtype}"
        raise BadArrays(f"{name}: {found} as declared, expected shape {shape} and dtype {dtype}")
    if len(data) != len(header) + expected:
        raise BadArrays(f"{name}: {len(data) - len(header)} bytes of values, expected {expected}")
    values = np.frombuffer(data, dtype=sent, offset=len(header)).reshape(shape)
    return _from_bits(values) if dtype == BFLOAT16 else values


def from_record(record: ArrayRecord, expected: Signature) -> dict[str, np.ndarray]:
    """Read-only views of the arrays of `record`, in the order of `expected`; of bfloat16 the same numbers in float32.

    Only plain C-order .npy bytes of exactly the agreed shape and dtype are accepted, and their length is compared
    before anything is allocated, so that neither a pickle nor a forged header is ever decoded.

    Raises:
        BadArrays: missing or extra names, other shape or dtype (a broadcastable one too), wrong length.
    """
    missing, extra = expected.keys() - record.keys(), record.keys() - expected.keys()
    if missing or extra:
        raise BadArrays(f"missing arrays {sorted(missing)[:3]}, unexpected arrays {sorted(extra)[:3]}")
    return {name: _decode(name, record[name], shape, dtype) for name, (shape, dtype) in expected.items()}


def size_bytes(content: RecordDict) -> int:
    """Bytes of all arrays of a message on the wire."""
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return sum(len(array.data) for record in records for array in record.values())

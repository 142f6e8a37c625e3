"""What travels: exactly the agreed arrays, bit for bit, and nothing else gets in."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from monai.networks.nets import DynUNet

from fedbrats.arrays import BadArrays, fingerprint, load, require_finite, signature, travelling
from fedbrats.federation import wire
from tests.federation.toy import ARRAYS, EXPECTED, toy_network


def dynunet(seed: int) -> DynUNet:
    torch.manual_seed(seed)
    return DynUNet(
        spatial_dims=3,
        in_channels=4,
        out_channels=3,
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[4, 8, 16],
        norm_name="batch",
        deep_supervision=True,
        deep_supr_num=1,
    )


def npy(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def with_w(data: bytes, shape: tuple[int, ...] = (4, 2), dtype: str = "float32") -> ArrayRecord:
    """A good record whose array `w` (4x2 float32) is `data`, announced with this shape and dtype."""
    record = wire.to_record(ARRAYS)
    record["w"] = Array(dtype, shape, "numpy.ndarray", data)
    return record


# What travels


def test_dynunet_sends_every_tensor_once_and_half_the_bytes() -> None:
    # T6: the skip layers register every block a second time.
    network = dynunet(0)
    naive = {n: t for n, t in network.state_dict().items() if t.is_floating_point()}
    tensors = travelling(network)
    pointers = [t.data_ptr() for t in tensors.values()]
    assert len(pointers) == len(set(pointers))
    assert set(pointers) == {t.data_ptr() for t in naive.values()}
    naive_bytes = sum(t.nbytes for t in naive.values())
    sent = RecordDict({"arrays": wire.to_record(tensors)})
    own_bytes = sum(t.nbytes for t in tensors.values())
    assert own_bytes < 0.55 * naive_bytes
    # 128 bytes of header weigh on arrays as small as these
    assert own_bytes < wire.size_bytes(sent) < 0.7 * naive_bytes


def test_loaded_values_reach_every_alias() -> None:
    # T5: not the names but the values under all names must be those that were sent.
    source, target = dynunet(1), dynunet(2)
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.weight.data.uniform_()
    record = wire.to_record(travelling(source))
    expected = signature(travelling(target))
    load(target, wire.from_record(record, expected))
    theirs = source.state_dict()
    assert len(theirs) > len(record)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(source.eval()(image), target.eval()(image))


def test_counters_stay_and_running_statistics_travel() -> None:
    # T7: num_batches_tracked is int64, its mean over sites means nothing.
    network = toy_network()
    network(torch.randn(2, 4, 8, 8, 8))
    names = travelling(network).keys()
    assert {"1.running_mean", "1.running_var", "1.weight", "1.bias"} <= names
    assert "1.num_batches_tracked" in network.state_dict()
    assert "1.num_batches_tracked" not in names
    other = toy_network()
    record = wire.to_record(travelling(network))
    load(other, wire.from_record(record, signature(travelling(other))))
    assert torch.equal(other[1].running_mean, network[1].running_mean)
    assert other[1].num_batches_tracked == 0


def test_non_persistent_buffers_stay() -> None:
    network = torch.nn.Linear(2, 2)
    network.register_buffer("scratch", torch.zeros(3), persistent=False)
    assert travelling(network).keys() == {"weight", "bias"}


def test_round_trip_is_bit_exact() -> None:
    tensors = {
        "odd": torch.tensor([0.1, -0.0, 1e-45, 3.4e38]),
        "scalar": torch.tensor(0.3),
        "empty": torch.zeros(0, 3),
        "double": torch.tensor([[1 / 3, 2 / 3]], dtype=torch.float64),
        "half": torch.tensor([0.1, 65504.0], dtype=torch.float16),
        "turned": torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).T,
    }
    back = wire.from_record(wire.to_record(tensors), signature(tensors))
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.numpy().dtype, name
        assert back[name].shape == tuple(tensor.shape), name
        assert back[name].tobytes() == tensor.contiguous().numpy().tobytes(), name
        assert not back[name].flags.writeable, name


def test_the_record_is_flowers_own_format() -> None:
    # Another Flower app reads the arrays with Flower's own call.
    record = wire.to_record(ARRAYS)
    for name, tensor in ARRAYS.items():
        np.testing.assert_array_equal(record[name].numpy(), tensor.numpy())
    numpy_record = ArrayRecord({n: Array(t.numpy()) for n, t in ARRAYS.items()})
    back = wire.from_record(numpy_record, EXPECTED)
    np.testing.assert_array_equal(back["w"], ARRAYS["w"].numpy())


# What is refused


def test_missing_and_extra_names_are_named() -> None:
    with pytest.raises(BadArrays, match=r"missing arrays \['b'\]"):
        wire.from_record(wire.to_record({"w": ARRAYS["w"]}), EXPECTED)
    with pytest.raises(BadArrays, match=r"unexpected arrays \['spy'\]"):
        wire.from_record(wire.to_record({**ARRAYS, "spy": torch.ones(1)}), EXPECTED)


@pytest.mark.parametrize(
    "shape", [(2, 4), (8,), (4, 2, 1), (1,), (4, 1), (1, 2), ()], ids=lambda shape: str(tuple(shape))
)
def test_another_shape_is_refused_even_if_it_would_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadArrays, match=r"w: shape .*expected shape \(4, 2\)"):
        wire.from_record(wire.to_record({**ARRAYS, "w": torch.ones(shape)}), EXPECTED)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int32, torch.int64], ids=str)
def test_another_dtype_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(BadArrays, match=r"w: .*expected .*float32"):
        wire.from_record(wire.to_record({**ARRAYS, "w": torch.ones(4, 2, dtype=dtype)}), EXPECTED)


def test_fortran_order_and_big_endian_are_refused() -> None:
    array = ARRAYS["w"].numpy()
    for changed in (np.asfortranarray(array), array.astype(">f4")):
        with pytest.raises(BadArrays, match="w: "):
            wire.from_record(with_w(npy(changed)), EXPECTED)


@pytest.mark.parametrize("change", [-1, -32, 1, 100, 10_000])
def test_truncated_and_too_long_data_are_refused(change: int) -> None:
    data = npy(ARRAYS["w"].numpy())
    data = data[:change] if change < 0 else data + bytes(change)
    with pytest.raises(BadArrays, match=r"w: .*bytes.*expected"):
        wire.from_record(with_w(data), EXPECTED)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"\x00" * 160])
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(BadArrays, match="w: "):
        wire.from_record(with_w(data), EXPECTED)


def test_a_forged_header_allocates_nothing() -> None:
    # numpy.load would ask for 400 GB here before it looks at the number of bytes.
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 100)}
    np.lib.format.write_array_header_1_0(buffer, header)
    record = with_w(buffer.getvalue() + bytes(32), shape=(4, 2))
    tracemalloc.start()
    try:
        with pytest.raises(BadArrays, match="w: "):
            wire.from_record(record, EXPECTED)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


class Bomb:
    exploded = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return setattr, (Bomb, "exploded", True)


def test_pickles_and_archives_are_refused_unread() -> None:
    objects = np.empty((4, 2), dtype=object)
    objects[:] = Bomb()
    archive = io.BytesIO()
    np.savez(archive, w=ARRAYS["w"].numpy())
    for data in (npy(objects, allow_pickle=True), pickle.dumps(Bomb()), archive.getvalue()):
        Bomb.exploded = False
        with pytest.raises(BadArrays, match="w: "):
            wire.from_record(with_w(data), EXPECTED)
        assert not Bomb.exploded


def test_announced_shape_does_not_count() -> None:
    # The bytes decide, whatever the metadata say: right bytes are read, wrong bytes are refused.
    good, bad = npy(ARRAYS["w"].numpy()), npy(np.ones((1,), np.float32))
    back = wire.from_record(with_w(good, shape=(10**12,), dtype="object"), EXPECTED)
    np.testing.assert_array_equal(back["w"], ARRAYS["w"].numpy())
    with pytest.raises(BadArrays, match="w: "):
        wire.from_record(with_w(bad, shape=(4, 2)), EXPECTED)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_found_and_named(value: float) -> None:
    arrays = {"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float32)}
    require_finite(arrays)
    arrays["b"][1, 0] = value
    with pytest.raises(BadArrays, match="b: non-finite"):
        require_finite(arrays)


def test_infinities_of_both_signs_and_large_finite_values_are_told_apart() -> None:
    with pytest.raises(BadArrays, match="a: non-finite"):
        require_finite({"a": np.array([np.inf, -np.inf], np.float32)})
    require_finite({"a": np.full(4, 3e38, np.float32)})  # the sum overflows, the values do not


def test_load_refuses_another_list_of_names() -> None:
    network = torch.nn.Linear(2, 2)
    with pytest.raises(BadArrays, match="2 travelling arrays, 1 were given"):
        load(network, {"weight": np.ones((2, 2), np.float32)})


def test_fingerprint_depends_on_names_shape_and_dtype_and_not_on_order() -> None:
    variants = [
        {"w": ((4, 2), "float32"), "b": ((4,), "float32")},
        {"w": ((2, 4), "float32"), "b": ((4,), "float32")},
        {"w": ((4, 2), "float64"), "b": ((4,), "float32")},
        {"v": ((4, 2), "float32"), "b": ((4,), "float32")},
        {"w": ((4, 2), "float32")},
    ]
    assert len({fingerprint(v) for v in variants}) == len(variants)
    turned = dict(reversed(variants[0].items()))  # arrays are found by name, a checkpoint has another order
    assert fingerprint(EXPECTED) == fingerprint(variants[0]) == fingerprint(turned)

"""Federated averaging against numbers derived by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Beside, Group, Left, Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean


def mean_of(replies: list[tuple[np.ndarray, float]]) -> np.ndarray:
    mean = WeightedMean()
    for array, weight in replies:
        mean.take({"w": array}, weight)
    return mean.arrays["w"].numpy()


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_weighted_mean_by_hand() -> None:
    """Sites with 1, 2 and 5 cases send (8, 0), (4, -8) and (0, 16).

    (1*8 + 2*4 + 5*0) / 8 = 2 and (1*0 + 2*(-8) + 5*16) / 8 = 8. The unweighted means would be 4 and 8/3.
    """
    result = mean_of([(f32(8, 0), 1), (f32(4, -8), 2), (f32(0, 16), 5)])
    np.testing.assert_allclose(result, [2, 8], rtol=1e-6)


def test_many_random_replies_agree_with_the_formula_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(20, 50)).astype(np.float32)
    weights = rng.integers(1, 500, 20).astype(float)
    expected = np.average(arrays.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mean_of(list(zip(arrays, weights, strict=True))), expected, atol=1e-6)


def test_one_reply_and_equal_replies_come_out_bit_identical() -> None:
    array = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    assert mean_of([(array, 7)]).tobytes() == array.tobytes()
    for weights in ([1, 1, 1], [3, 511, 1], [1, 100, 1]):  # shares above and below one half
        assert mean_of([(array, weight) for weight in weights]).tobytes() == array.tobytes()


def test_the_same_order_gives_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    replies = [(rng.normal(size=1000).astype(np.float32), float(n)) for n in (3, 1, 4, 1, 5)]
    assert mean_of(replies).tobytes() == mean_of(replies).tobytes()
    # Another order may round differently; that is why the server adds in site order.
    np.testing.assert_allclose(mean_of(replies), mean_of(replies[::-1]), atol=1e-6)


def test_replies_are_not_changed_and_not_kept() -> None:
    first, second = f32(1, 2), f32(3, 4)
    mean = WeightedMean()
    mean.take({"w": first}, 1)
    mean.take({"w": second}, 1)
    np.testing.assert_array_equal(first, [1, 2])
    np.testing.assert_array_equal(second, [3, 4])
    assert (mean.replies, mean.weight) == (2, 2)


def test_dtype_is_kept() -> None:
    mean = WeightedMean()
    mean.take({"a": np.ones(2, np.float64), "b": np.ones(2, np.float16)}, 1)
    mean.take({"a": np.zeros(2, np.float64), "b": np.zeros(2, np.float16)}, 3)
    assert mean.arrays["a"].dtype == torch.float64
    assert mean.arrays["b"].dtype == torch.float16
    assert mean.arrays["a"].tolist() == [0.25, 0.25]


def test_memory_does_not_grow_with_the_number_of_replies() -> None:
    size = 1_000_000  # 4 MB

    def held_after(replies: int) -> int:
        mean = WeightedMean()
        for value in range(replies):
            mean.take({"w": np.full(size, value, np.float32)}, 1.0)
        assert list(mean.arrays) == ["w"]
        assert mean.arrays["w"].nbytes == 4 * size
        return tracemalloc.get_traced_memory()[1]

    peaks = []
    for replies in (2, 20):
        tracemalloc.start()
        peaks.append(held_after(replies))
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4 * size


@pytest.mark.parametrize(
    ("quorum", "asked", "needed"),
    [
        (0.5, 1, 1),
        (0.5, 2, 1),
        (0.5, 3, 2),
        (0.5, 4, 2),
        (0.1, 3, 1),
        (1.0, 7, 7),
        (0.7, 10, 7),
        (0.3, 10, 3),
    ],
)
def test_quorum(quorum: float, asked: int, needed: int) -> None:
    # 0.7 * 10 is 7.000000000000001 or 6.999999999999999 in floating point, depending on the numbers.
    assert FedAvg(quorum=quorum).needed(asked) == needed


def test_without_a_quorum_every_site_must_answer() -> None:
    assert [FedAvg().needed(asked) for asked in (1, 2, 7)] == [1, 2, 7]


def test_quorum_of_every_share_that_is_a_whole_number_of_sites() -> None:
    for asked in range(1, 60):
        for replies in range(1, asked + 1):
            assert FedAvg(quorum=replies / asked).needed(asked) == replies


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quorum", 0),
        ("quorum", 1.01),
        ("quorum", -1),
        ("quorum", float("nan")),
        ("missed_share", -0.1),
        ("missed_share", 1.1),
        ("missed_share", float("nan")),
        ("max_failed_rounds", 0),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
    ],
)
def test_a_bad_value_names_its_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.{key}={value}"):
        FedAvg(**{key: value})


def test_sites_weigh_by_their_training_cases() -> None:
    found = FedAvg().collect(Memory())
    found.add(Reply("A", {"w": f32(0.0)}, cases=1, steps=9))
    found.add(Reply("B", {"w": f32(4.0)}, cases=3, steps=1))
    new, memory = FedAvg().step({}, found, Memory(facts={"kept": 1}), Group(2, frozenset({"w"})))
    assert (new["w"].tolist(), memory.facts) == ([3.0], {"kept": 1})


def test_a_site_trains_plainly_and_nothing_travels_beside_the_model() -> None:
    network = torch.nn.Linear(2, 2)
    assert FedAvg().begin(network, Beside()) is None
    assert FedAvg().end(network, Beside(), 5, 0.1) == Left()
    assert FedAvg().told({"w": torch.ones(1)}, Memory(), Group(2, frozenset({"w"}))) == {}

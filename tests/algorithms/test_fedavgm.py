"""FedAvgM by hand, and without momentum."""

from __future__ import annotations

import pytest

from fedbrats.algorithms.base import Memory
from fedbrats.algorithms.fedavgm import FedAvgM
from tests.algorithms.test_fedadam import step


def test_three_rounds_by_hand() -> None:
    """From x = 1, beta = 0.5, lr = 0.1: D = 0.5, v = 0.5, x = 1.05; D = -0.05, v = 0.2, 1.07; D = 0, v = 0.1, 1.08."""
    algorithm, memory, x = FedAvgM(beta=0.5, lr=0.1), Memory(), 1.0
    for said, v, there in (([1.2, 1.8], 0.5, 1.05), ([0.9, 1.1], 0.2, 1.07), ([1.07, 1.07], 0.1, 1.08)):
        new, memory = step(algorithm, {"w": x}, [{"w": value} for value in said], memory)
        x = float(new["w"])
        assert (x, float(memory.arrays["w"])) == (pytest.approx(there), pytest.approx(v))


def test_without_momentum_it_is_the_mean() -> None:
    new, memory = step(FedAvgM(beta=0), {"w": 1.0}, [{"w": 2.0}, {"w": 5.0}], Memory())
    new, _ = step(FedAvgM(beta=0), {"w": float(new["w"])}, [{"w": -1.0}], memory)
    assert float(new["w"]) == pytest.approx(-1.0)


def test_running_statistics_are_averaged_and_never_stepped() -> None:
    replies = [{"w": -1.0, "var": 0.5}, {"w": -1.0, "var": 0.1}]
    new, memory = step(FedAvgM(lr=9.0), {"w": 0.0, "var": 1.0}, replies, Memory())
    assert float(new["var"]) == pytest.approx(0.3)
    assert memory.arrays.keys() == {"w"}


@pytest.mark.parametrize(("key", "value"), [("beta", 1.0), ("beta", -0.1), ("lr", 0.0), ("lr", float("nan"))])
def test_a_bad_value_names_its_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.{key}={value}"):
        FedAvgM(**{key: value})

"""FedAdam against numbers worked out by hand from Algorithm 2, and what must never reach its step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Company, Group, Memory, Reply
from fedbrats.algorithms.fedadam import FedAdam

GROUP = Group(sites=2, trainable=frozenset({"w"}))


def step(
    algorithm: FedAdam, old: dict[str, float], replies: list[dict[str, float]], memory: Memory
) -> tuple[dict[str, torch.Tensor], Memory]:
    found = algorithm.collect(memory)
    for reply in replies:
        arrays = {name: np.array([value], np.float64) for name, value in reply.items()}
        found.add(Reply("A", arrays, cases=1, steps=1))
    start = {name: torch.tensor([value], dtype=torch.float64) for name, value in old.items()}
    return algorithm.step(start, found, memory, GROUP)


def test_two_rounds_by_hand() -> None:
    """x = 1, lr = 0.1, beta_1 = 0.9, beta_2 = 0.99, tau = 0.1, so v starts at 0.01.

    Round 1: the sites say 1.2 and 1.8, D = 0.5; m = 0.05, v = 0.0099 + 0.0025 = 0.0124, sqrt(v) = 0.1113553,
    x = 1 + 0.1 * 0.05 / 0.2113553 = 1.0236568.
    Round 2: both say 1, D = -0.0236568; m = 0.045 - 0.00236568 = 0.04263432,
    v = 0.012276 + 0.00000559644 = 0.01228159644, sqrt(v) = 0.1108224,
    x = 1.0236568 + 0.1 * 0.04263432 / 0.2108224 = 1.0438797.
    """
    algorithm = FedAdam(lr=0.1, tau=0.1)
    new, memory = step(algorithm, {"w": 1.0}, [{"w": 1.2}, {"w": 1.8}], Memory())
    assert float(new["w"]) == pytest.approx(1.0236568, abs=5e-8)
    assert float(memory.arrays["m/w"]) == pytest.approx(0.05)
    assert float(memory.arrays["v/w"]) == pytest.approx(0.0124)
    new, memory = step(algorithm, {"w": float(new["w"])}, [{"w": 1.0}, {"w": 1.0}], memory)
    assert float(new["w"]) == pytest.approx(1.0438797, abs=5e-8)
    assert float(memory.arrays["m/w"]) == pytest.approx(0.0426343, abs=5e-8)
    assert float(memory.arrays["v/w"]) == pytest.approx(0.01228159644, abs=5e-11)


def test_running_statistics_are_averaged_and_never_stepped() -> None:
    new, memory = step(
        FedAdam(lr=9.0), {"w": 0.0, "var": 1.0}, [{"w": -1.0, "var": 0.5}, {"w": -1.0, "var": 0.1}], Memory()
    )
    assert float(new["var"]) == pytest.approx(0.3)
    assert memory.arrays.keys() == {"m/w", "v/w"}


def test_what_it_is_given_stays_as_it_was() -> None:
    memory = Memory({"m/w": torch.ones(1, dtype=torch.float64), "v/w": torch.ones(1, dtype=torch.float64)})
    _, new = step(FedAdam(), {"w": 1.0}, [{"w": 2.0}], memory)
    assert (memory.arrays["m/w"].item(), memory.arrays["v/w"].item()) == (1.0, 1.0)
    assert new.arrays["v/w"].item() == 1.0  # 0.99 + 0.01 * 1^2


def test_it_goes_with_every_kind_of_privacy() -> None:
    """A step with the mean alone costs nothing after the noise."""
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    for company in (Company(patient_privacy=True), Company(central_privacy=True, optimizer=adam)):
        assert FedAdam().refuses(company) is None


@pytest.mark.parametrize(
    ("key", "value"), [("lr", 0.0), ("tau", 0.0), ("beta_1", 1.0), ("beta_2", -0.1), ("lr", float("nan"))]
)
def test_a_bad_value_names_its_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.{key}={value}"):
        FedAdam(**{key: value})

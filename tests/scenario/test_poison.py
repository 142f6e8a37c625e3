"""Replies that lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.scenario.poison import poisoned


def lie(kind: str, strength: float, seed: int = 0) -> dict[str, torch.Tensor]:
    trained = {"w": torch.tensor([2.0, 5.0]), "seen": torch.tensor([7.0])}
    received = {"w": np.array([1.0, 1.0], np.float32), "seen": np.array([3.0], np.float32)}
    return poisoned(kind, strength, trained, received, {"w", "elsewhere"}, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("kind", "strength", "expected"),
    [("sign_flip", 1.0, [0.0, -3.0]), ("sign_flip", 2.0, [-1.0, -7.0]), ("scale", 10.0, [11.0, 41.0])],
)
def test_the_change_by_hand(kind: str, strength: float, expected: list[float]) -> None:
    found = lie(kind, strength)
    assert found["w"].tolist() == expected
    assert found["seen"].tolist() == [7.0]  # running statistics stay honest


def test_noise_is_as_long_as_the_change_and_another_for_each_draw() -> None:
    changes = [lie("noise", 2.0, seed)["w"] - 1 for seed in range(3)]
    assert [float(change.norm()) for change in changes] == pytest.approx([2 * 17**0.5] * 3)
    assert not torch.allclose(changes[0], changes[1])
    assert torch.equal(changes[2], lie("noise", 2.0, 2)["w"] - 1)

"""Losses that follow the global round."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbrats.losses.boundary import Boundary
from fedbrats.losses.compound import PerRegion, WeightedSum
from fedbrats.losses.dice import Dice
from fedbrats.losses.in_round import in_round
from fedbrats.losses.ramp import Ramp
from tests.losses.samples import sample


class Constant(nn.Module):
    """A loss of the same value for every sample."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.full((len(logits),), self.value)


def share_of(start: float, end: float, round_: int, rounds: int) -> float:
    """The share of the second loss, read off a blend of 0 and 1."""
    logits, target = sample(3)
    return float(in_round(Ramp(start, end, Constant(0.0), Constant(1.0)), round_, rounds)(logits, target)[0])


def test_fifty_rounds_are_the_papers_fifty_epochs() -> None:
    """0.01 and then 0.01 more each."""
    assert [share_of(0.01, 0.50, r, 50) for r in (1, 2, 25, 50)] == pytest.approx([0.01, 0.02, 0.25, 0.50])


def test_start_middle_and_end() -> None:
    assert [share_of(0.2, 1.0, r, 5) for r in (1, 3, 5)] == pytest.approx([0.2, 0.6, 1.0])
    assert share_of(0.2, 1.0, 1, 1) == pytest.approx(0.2)
    assert share_of(0.2, 1.0, 9, 5) == pytest.approx(1.0)
    assert [share_of(1.0, 0.0, r, 3) for r in (1, 2, 3)] == pytest.approx([1.0, 0.5, 0.0])


def test_the_value_is_the_blend_and_no_round_is_remembered() -> None:
    logits, target = sample(3)
    loss = Ramp(0.0, 1.0, Dice(), Boundary())
    dice, boundary = Dice()(logits, target), Boundary()(logits, target)
    rounds = {r: in_round(loss, r, 5) for r in (1, 2, 5)}
    for round_, a in ((5, 1.0), (1, 0.0), (2, 0.25)):
        torch.testing.assert_close(rounds[round_](logits, target), (1 - a) * dice + a * boundary)
    torch.testing.assert_close(loss(logits, target), dice)  # without a round it is the first


def test_ramps_inside_other_losses_are_reached() -> None:
    logits, target = sample(3)
    inner = [Ramp(0.0, 1.0, Constant(0.0), Constant(value)) for value in (1.0, 10.0, 100.0)]
    nested = PerRegion(inner[0], Ramp(0.0, 1.0, inner[1], inner[2]), Constant(7.0))
    loss = in_round(WeightedSum({"a": 1.0}, {"a": nested}), 2, 3)
    # WT 0.5, TC half of 5 and half of 50, ET 7
    assert float(loss(logits, target)[0]) == pytest.approx((0.5 + 27.5 + 7) / 3)


def test_losses_without_a_ramp_and_plain_functions_are_called_as_they_are() -> None:
    logits, target = sample(3)
    assert not WeightedSum({"a": 1.0}, {"a": Dice()}).by_round
    torch.testing.assert_close(in_round(Dice(), 2, 3)(logits, target), Dice()(logits, target))
    assert in_round(lambda logits, target: logits, 2, 3)(logits, target) is logits


@pytest.mark.parametrize(
    ("key", "values"), [("start", (-0.1, 1)), ("end", (0, 1.1)), ("end", (0, float("nan")))]
)
def test_bad_values_are_named(key: str, values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.{key}="):
        Ramp(*values, Dice(), Boundary())

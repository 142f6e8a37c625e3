"""Losses that follow the global round."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.losses.boundary import Boundary
from fedbrats.losses.compound import PerRegion, WeightedSum
from fedbrats.losses.dice import Dice
from fedbrats.losses.ramp import Ramp, set_round
from tests.losses.samples import sample


def a_of(loss: nn.Module, round_: int, rounds: int) -> float:
    set_round(loss, round_, rounds)
    return next(m for m in loss.modules() if isinstance(m, Ramp)).share


def test_fifty_rounds_are_the_papers_fifty_epochs() -> None:
    """0.01 and then 0.01 more each."""
    loss = Ramp(0.01, 0.50, Dice(), Boundary())
    assert [a_of(loss, r, 50) for r in (1, 2, 25, 50)] == pytest.approx([0.01, 0.02, 0.25, 0.50])


def test_start_middle_and_end() -> None:
    loss = Ramp(0.2, 1.0, Dice(), Boundary())
    assert loss.share == 0.2  # before any round is known
    assert [a_of(loss, r, 5) for r in (1, 3, 5)] == pytest.approx([0.2, 0.6, 1.0])
    assert a_of(loss, 1, 5) == pytest.approx(0.2)  # a resumed run may go back
    assert a_of(loss, 1, 1) == pytest.approx(0.2)
    falling = Ramp(1.0, 0.0, Dice(), Boundary())
    assert [a_of(falling, r, 3) for r in (1, 2, 3)] == pytest.approx([1.0, 0.5, 0.0])


def test_the_value_is_the_blend() -> None:
    logits, target = sample(3)
    loss = Ramp(0.0, 1.0, Dice(), Boundary())
    dice, boundary = Dice()(logits, target), Boundary()(logits, target)
    for round_, a in ((1, 0.0), (2, 0.25), (5, 1.0)):
        set_round(loss, round_, 5)
        torch.testing.assert_close(loss(logits, target), (1 - a) * dice + a * boundary)


def test_ramps_inside_other_losses_are_reached() -> None:
    inner = [Ramp(0.0, 1.0, Dice(), Boundary()) for _ in range(3)]
    nested = PerRegion(inner[0], Ramp(0.0, 1.0, inner[1], inner[2]), Dice())
    set_round(WeightedSum({"a": 1.0}, {"a": nested}), 2, 3)
    assert [ramp.share for ramp in inner] == [0.5, 0.5, 0.5]
    assert nested.terms["TC"].share == 0.5


def test_losses_without_a_ramp_and_plain_functions_are_left_alone() -> None:
    set_round(Dice(), 2, 3)
    set_round(lambda logits, target: logits, 2, 3)


@pytest.mark.parametrize(
    ("key", "values"), [("start", (-0.1, 1)), ("end", (0, 1.1)), ("end", (0, float("nan")))]
)
def test_bad_values_are_named(key: str, values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=rf"^loss\.{key}="):
        Ramp(*values, Dice(), Boundary())

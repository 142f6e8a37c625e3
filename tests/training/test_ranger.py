"""Ranger: torch's RAdam between the steps of the slow weights, which are worked out here by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbrats.training.optimizers import load_optimizer_tensors, optimizer_tensors
from fedbrats.training.ranger import ranger

START = [1.0, -2.0, 3.0]


def weights() -> nn.Parameter:
    return nn.Parameter(torch.tensor(START))


def step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Tensor:
    optimizer.zero_grad()
    (parameter**2).sum().backward()
    optimizer.step()
    return parameter.detach().clone()


def test_between_its_turns_it_is_radam() -> None:
    mine, theirs = weights(), weights()
    optimizer = ranger([mine], lr=0.1, period=6)
    radam = torch.optim.RAdam([theirs], lr=0.1, betas=(0.95, 0.999), eps=1e-5)
    for _ in range(5):
        assert torch.equal(step(optimizer, mine), step(radam, theirs))


@pytest.mark.parametrize("share", [0.5, 0.2, 1.0])
def test_after_the_period_the_weights_go_back_a_part_of_the_way(share: float) -> None:
    mine, theirs = weights(), weights()
    optimizer = ranger([mine], lr=0.1, period=3, share=share)
    radam = torch.optim.RAdam([theirs], lr=0.1, betas=(0.95, 0.999), eps=1e-5)
    slow = torch.tensor(START)
    for turn in range(3):
        for _ in range(3):
            found, fast = step(optimizer, mine), step(radam, theirs)
        slow = slow + share * (fast - slow)
        torch.testing.assert_close(found, slow)
        with torch.no_grad():
            theirs.copy_(slow)
        assert turn or not torch.equal(fast, torch.tensor(START))


def test_slow_weights_are_those_of_the_first_step_and_are_not_kept_with_the_moments() -> None:
    mine = weights()
    optimizer = ranger([mine], lr=0.001, period=1)
    with torch.no_grad():
        mine.fill_(10.0)  # what the server sends after the optimiser was made
    first = step(optimizer, mine)
    assert (first > 9.9).all()
    kept = optimizer_tensors(optimizer)
    assert {name.split(".", 1)[1] for name in kept} == {"step", "exp_avg", "exp_avg_sq"}
    again = weights()
    other = ranger([again], lr=0.001, period=1)
    load_optimizer_tensors(other, kept)
    found = step(other, again)
    assert (found - torch.tensor(START)).abs().max() < 0.2  # not half of the way back to 10


def test_a_parameter_without_a_gradient_stays() -> None:
    frozen, mine = nn.Parameter(torch.tensor([5.0]), requires_grad=False), weights()
    optimizer = ranger([frozen, mine], lr=0.1, period=1)
    step(optimizer, mine)
    assert frozen.item() == 5.0
    assert not torch.equal(mine.detach(), torch.tensor(START))


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match=r"train\.optimizer\.period=0: must be 1 step or more"):
        ranger([weights()], period=0)
    with pytest.raises(ValueError, match=r"train\.optimizer\.share=0: must lie in \(0, 1\]"):
        ranger([weights()], share=0)
    with pytest.raises(ValueError, match="Invalid learning rate"):
        ranger([weights()], lr=-1)

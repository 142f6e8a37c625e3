"""A loss where some regions have no labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.losses.compound import DiceCE
from fedbrats.losses.cross_entropy import CrossEntropy
from fedbrats.losses.dice import Dice
from fedbrats.losses.labelled import labelled_only


def case() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, 4, generator=rng, requires_grad=True)
    return logits, torch.rand(2, 3, 4, 4, 4, generator=rng) > 0.5


@pytest.mark.parametrize("loss", [DiceCE(), Dice(), CrossEntropy()], ids=["DiceCE", "Dice", "CrossEntropy"])
def test_nothing_is_learnt_where_nothing_is_known(loss: nn.Module) -> None:
    logits, target = case()
    value = labelled_only(loss, ["ET"])(logits, target)
    value.sum().backward()
    assert logits.grad is not None
    assert float(logits.grad[:, 2].abs().max()) == 0
    assert float(logits.grad[:, :2].abs().min()) > 0
    other = logits.detach().clone()
    other[:, 2] += 5.0
    torch.testing.assert_close(labelled_only(loss, ["ET"])(other, target), value)


def test_the_others_count_as_in_the_whole_loss() -> None:
    logits, target = case()
    perfect = torch.where(target, 20.0, -20.0)
    filled = torch.cat([logits[:, :2], perfect[:, 2:]], dim=1)
    torch.testing.assert_close(labelled_only(DiceCE(), ["ET"])(logits, target), DiceCE()(filled, target))
    mean = (
        CrossEntropy()(logits[:, :2], target[:, :2]) * 2 / 3
    )  # of three channels, one of which costs nothing
    torch.testing.assert_close(labelled_only(CrossEntropy(), ["ET"])(logits, target), mean)


def test_with_all_labels_it_is_the_loss() -> None:
    loss = DiceCE()
    assert labelled_only(loss, []) is loss

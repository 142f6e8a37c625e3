"""Semantic error: values by hand, and what an output of one voxel is compared with."""

from __future__ import annotations

import math

import pytest
import torch

from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.dice import Dice
from fedbrats.losses.in_round import in_round
from fedbrats.losses.labelled import labelled_only
from fedbrats.losses.ramp import Ramp
from fedbrats.losses.semantic import WithPresence, presence
from tests.losses.samples import logit, sample


def test_a_class_is_present_where_any_voxel_has_it() -> None:
    labels = torch.zeros(3, 4, 4, 4, dtype=torch.uint8)
    labels[1, 3, 3, 3] = 3
    labels[2] = 2
    found = {c: presence(labels, torch.zeros(3, c, 1, 1, 1)).flatten(1).int().tolist() for c in (1, 3, 4)}
    assert found[4] == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]
    assert found[3] == [[0, 0, 0], [1, 1, 1], [1, 0, 0]]
    assert found[1] == [[0], [1], [1]]


def test_an_output_of_one_voxel_is_compared_with_the_presence_by_sigmoids() -> None:
    """Background and ET are there: -(ln 0.9 + ln (1 - 0.2) + ln (1 - 0.4) + ln 0.5) / 4; no softmax over the four."""
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    labels[0, 1, 2, 3] = 3
    outputs = [torch.zeros(1, 4, 4, 4, 4), logit([0.9, 0.2, 0.4, 0.5]).reshape(1, 4, 1, 1, 1)]
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.6) + math.log(0.5)) / 4
    assert deep_supervised(WithPresence(Dice()), outputs, labels, [0, 1]).item() == pytest.approx(expected)


def test_both_parts_count_alike() -> None:
    labels = torch.randint(0, 4, (2, 4, 4, 4), dtype=torch.uint8)
    logits, told = torch.randn(2, 4, 4, 4, 4), torch.randn(2, 4, 1, 1, 1)
    loss = WithPresence(Dice())
    parts = [deep_supervised(loss, [logits, told], labels, w) for w in ([1, 0], [0, 1])]
    torch.testing.assert_close(
        deep_supervised(loss, [logits, told], labels, [1, 1]), (parts[0] + parts[1]) / 2
    )
    torch.testing.assert_close(parts[0], deep_supervised(Dice(), logits, labels))


def test_voxels_have_their_own_loss_in_every_round() -> None:
    logits, target = sample(3)
    ramp = Ramp(0.0, 1.0, Dice(), Dice(squared=True))
    loss = WithPresence(ramp)
    assert loss.by_round
    assert not WithPresence(Dice()).by_round
    for round_ in (1, 10):
        torch.testing.assert_close(
            in_round(loss, round_, 10)(logits, target), in_round(ramp, round_, 10)(logits, target)
        )


def test_a_site_without_labels_of_a_region_learns_nothing_of_its_presence() -> None:
    loss = labelled_only(WithPresence(Dice()), ["ET"])
    told = torch.zeros(1, 3, 1, 1, 1, requires_grad=True)
    labels = torch.full((1, 4, 4, 4), 2, dtype=torch.uint8)
    deep_supervised(loss, [torch.zeros(1, 3, 4, 4, 4), told], labels, [0, 1]).sum().backward()
    assert told.grad is not None
    assert (told.grad.flatten() != 0).tolist() == [True, True, False]

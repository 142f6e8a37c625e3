"""Cross-entropy of supervoxels: values by hand, and what counts as the label of one."""

from __future__ import annotations

import math

import pytest
import torch

from fedbrats.losses.cross_entropy import CrossEntropy
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.nodes import OUTSIDE, WithNodes, is_of_nodes, with_numbers
from fedbrats.losses.ramp import Ramp

WEIGHTS = (0.1, 2.0, 1.0, 4.0)
# Supervoxel 5 has three voxels, two of oedema; 2 has two, of background and NCR; the last voxel is in none.
NUMBERS = torch.tensor([[[[5, 5, 5, 2, 2, OUTSIDE]]]])
LABELS = torch.tensor([[[[2, 3, 2, 0, 1, 3]]]], dtype=torch.uint8)
PROBABILITIES = {5: [0.1, 0.2, 0.5, 0.2], 2: [0.25, 0.25, 0.25, 0.25], OUTSIDE: [0.97, 0.01, 0.01, 0.01]}


def told(requires_grad: bool = False) -> torch.Tensor:
    rows = torch.tensor([PROBABILITIES[int(n)] for n in NUMBERS.flatten()]).log()
    return rows.T.reshape(1, 4, 1, 1, 6).clone().requires_grad_(requires_grad)


def test_each_supervoxel_counts_once_with_the_weight_of_its_label() -> None:
    """Oedema for 5, background for 2, the smaller of two as frequent: (1 ln 2 + 0.1 ln 4) / 1.1."""
    loss = WithNodes(CrossEntropy(), WEIGHTS)
    outputs = [torch.zeros(1, 4, 1, 1, 6), with_numbers(told(), NUMBERS)]
    expected = (math.log(2) + 0.1 * math.log(4)) / 1.1
    assert deep_supervised(loss, outputs, LABELS, [0, 1]).item() == pytest.approx(expected)
    both = (expected + math.log(4)) / 2
    assert deep_supervised(loss, outputs, LABELS, [1, 1]).item() == pytest.approx(both)


def test_the_gradient_of_voxels_is_that_of_their_supervoxel_and_none_outside() -> None:
    """Of 5 with weight 1 / 1.1: (p - truth) / 1.1, summed over its three voxels."""
    logits = told(requires_grad=True)
    loss = WithNodes(CrossEntropy(), WEIGHTS)
    deep_supervised(loss, with_numbers(logits, NUMBERS), LABELS).sum().backward()
    assert logits.grad is not None
    found = logits.grad[0, :, 0, 0]
    expected = torch.tensor([0.1, 0.2, 0.5 - 1, 0.2]) / 1.1
    torch.testing.assert_close(found[:, :3].sum(1), expected)
    torch.testing.assert_close(found[:, 0], expected / 3)
    assert not found[:, 5].any()


def test_a_sample_does_not_depend_on_its_batch_mates() -> None:
    """Exactly, in value and gradient: patient-level privacy rests on it. One without a brain is worth 0."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 4, 4, 4, generator=generator)
    numbers = torch.randint(-1, 9, (3, 4, 4, 4), generator=generator)
    labels = torch.randint(0, 4, (3, 4, 4, 4), generator=generator, dtype=torch.uint8)
    numbers[2] = OUTSIDE
    loss, found = WithNodes(CrossEntropy(), WEIGHTS), []
    for batch in (slice(0, 1), slice(0, 3)):
        given = logits[batch].clone().requires_grad_()
        values = deep_supervised(loss, with_numbers(given, numbers[batch]), labels[batch])
        (gradient,) = torch.autograd.grad(values.sum(), given)
        found.append((values, gradient))
    assert torch.equal(found[0][0], found[1][0][:1])
    assert torch.equal(found[0][1], found[1][1][:1])
    assert found[1][0][2] == 0
    assert not found[1][1][2].any()


def test_logits_of_voxels_have_their_own_loss_in_every_round() -> None:
    logits, target = torch.randn(2, 4, 3, 3, 3), torch.zeros(2, 4, 3, 3, 3)
    target[:, 0] = 1
    assert torch.equal(WithNodes(CrossEntropy(), WEIGHTS)(logits, target), CrossEntropy()(logits, target))
    assert not any(is_of_nodes(torch.zeros(2, channels, 3, 3, 3)) for channels in (1, 3, 4))
    assert not WithNodes(CrossEntropy(), WEIGHTS).by_round
    ramp = WithNodes(Ramp(0.0, 1.0, CrossEntropy(), CrossEntropy()), WEIGHTS)
    assert ramp.by_round
    torch.testing.assert_close(ramp(logits, target, 0.5), CrossEntropy()(logits, target))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ((1, 1, 1), r"loss\.weights=\[1, 1, 1\]: 4 weights"),
        ((1, 1, 0, 1), r"loss\.weights\[2\]=0: must be positive"),
        ((1, -1, 1, 1), r"loss\.weights\[1\]=-1: must be a number >= 0"),
    ],
)
def test_bad_weights_are_named(weights: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WithNodes(CrossEntropy(), weights)

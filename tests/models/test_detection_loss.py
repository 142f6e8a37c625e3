"""Instances of a slice, and the five terms of a detector's loss, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fedbrats.models.boxes import NOBODY, decode, encode
from fedbrats.models.detection_loss import INSTANCES, DetectionLoss, focal, instances

BOX, OTHER = [4.0, 8.0, 12.0, 24.0], [20.0, 2.0, 24.0, 6.0]  # two instances, the larger one first
SIDES = (32, 32)


def labels() -> torch.Tensor:
    found = torch.zeros(2, *SIDES, dtype=torch.uint8)
    found[0, 20:24, 2:6] = 1
    found[0, 4:12, 8:24] = 2
    found[0, 6:8, 10:12] = 3
    return found  # the second slice has no tumour


def said(right: float = 60.0) -> DetectionLoss:
    """A detector that is sure and right: logits of `right` and its minus."""
    anchors = torch.tensor([BOX, OTHER, [0.0, 0, 32, 32], [14, 14, 20, 30]])
    proposals = torch.tensor([[5.0, 8, 12, 24], [20, 2, 24, 6], [14, 14, 20, 30], [0, 0, 9, 9]]).expand(
        2, -1, -1
    )
    yes = torch.tensor([[1.0, 1, -1, -1], [-1, -1, -1, -1]]) * right
    truth = torch.tensor([BOX, OTHER, OTHER, OTHER])
    refined = encode(truth, proposals[0]).expand(2, -1, -1)
    ranks = torch.tensor([[3.0, 2, 1, NOBODY], [1, 1, 1, NOBODY]])
    masks = torch.full((2, 4, 4, 4), right)
    return DetectionLoss(
        SIDES, anchors, yes, torch.zeros(2, 4, 4), proposals, ranks, yes.clone(), refined, masks, 2.0
    )


def test_parts_of_the_tumour_are_instances_largest_first() -> None:
    parts, boxes = instances(labels())
    assert boxes.shape == (2, INSTANCES, 4)
    assert boxes[0, :2].tolist() == [BOX, OTHER]
    assert not boxes[0, 2:].any()
    assert not boxes[1].any()
    assert parts.unique(return_counts=True)[1].tolist() == [2 * 32 * 32 - 128 - 16, 128, 16]
    touching = torch.zeros(1, 8, 8, dtype=torch.uint8)
    touching[0, 2, 2] = touching[0, 3, 3] = 1  # by a corner
    assert instances(touching)[0].max() == 1


def test_more_instances_than_there_is_room_for() -> None:
    many = torch.zeros(1, 32, 32, dtype=torch.uint8)
    many[0, ::2, ::2] = 1
    many[0, 10:14, 10:13] = 1
    parts, boxes = instances(many)
    assert parts.max() == INSTANCES
    assert boxes[0, :, 2].min() > 0


def test_focal_loss_by_hand() -> None:
    logits, target = torch.tensor([math.log(3.0), math.log(3.0)]), torch.tensor([1.0, 0.0])  # p = 3/4
    by_hand = [(1 / 4) ** 2 * -math.log(3 / 4), (3 / 4) ** 2 * -math.log(1 / 4)]
    assert focal(logits, target, 2.0).tolist() == pytest.approx(by_hand)
    assert focal(logits, target, 0.0).tolist() == pytest.approx([-math.log(3 / 4), -math.log(1 / 4)])


def test_who_is_right_pays_nothing() -> None:
    found = said()(labels())
    assert found.shape == (2,)
    assert found.abs().max() < 1e-5


def test_each_term_by_hand() -> None:
    """One thing wrong at a time; gamma 0 and logits of 0 cost log 2."""
    right = replace(said(), gamma=0.0)
    objectness = right.objectness.clone()
    objectness[0, 3] = 0  # a negative anchor, over two positive ones
    assert replace(right, objectness=objectness)(labels())[0].item() == pytest.approx(
        math.log(2) / 2, rel=1e-4
    )
    offsets = right.offsets.clone()
    offsets[0, 0, 1], offsets[0, 3] = 3.0, 9.0  # smooth L1: 3 - 1/2; a negative anchor has no way to go
    assert replace(right, offsets=offsets)(labels())[0].item() == pytest.approx(2.5 / 2, rel=1e-4)
    scores = right.scores.clone()
    scores[:, 2], scores[:, 3] = 0, 90  # over two positive ones and over none; the last place has no proposal
    assert replace(right, scores=scores)(labels()).tolist() == pytest.approx(
        [math.log(2) / 2, math.log(2)], rel=1e-4
    )
    refined = right.refined.clone()
    refined[0, 0, 2] += 0.5  # smooth L1: 1/2 of the square
    assert replace(right, refined=refined)(labels())[0].item() == pytest.approx(0.125 / 2, rel=1e-4)
    masks = right.masks.clone()
    masks[0, 1, 0] = 0  # a quarter of one of two masks
    assert replace(right, masks=masks)(labels())[0].item() == pytest.approx(math.log(2) / 8, rel=1e-4)


def test_an_anchor_between_the_two_bounds_counts_for_nothing() -> None:
    right = replace(said(), gamma=0.0)
    anchors, objectness = right.anchors.clone(), right.objectness.clone()
    objectness[0, 3] = 0
    for box, cost in (([4.0, 8, 12, 16], 0.0), ([4.0, 8, 12, 12.5], math.log(2) / 2)):  # overlaps .5 and .28
        anchors[3] = torch.tensor(box)
        found = replace(right, anchors=anchors, objectness=objectness)(labels())
        assert found[0].item() == pytest.approx(cost, rel=1e-4, abs=1e-5)


def test_a_mask_is_that_of_its_own_instance_within_the_box() -> None:
    """A proposal of the left half of an L: the cells of its lower right are not tumour."""
    shape = torch.zeros(1, *SIDES, dtype=torch.uint8)
    shape[0, 8:24, 8:16] = shape[0, 8:16, 8:24] = 2
    shape[0, 20:22, 20:22] = 1  # another instance in the same box
    masks = torch.tensor([[60.0, 60], [60, -60]]).reshape(1, 1, 2, 2)
    one = torch.tensor([[[8.0, 8, 24, 24]]])
    sure, zero = torch.full((1, 1), 60.0), torch.zeros(1, 1, 4)
    loss = DetectionLoss(SIDES, one[0], sure, zero, one, torch.ones(1, 1), sure, zero, masks, 2.0)
    assert loss(shape).item() < 1e-5
    assert replace(loss, masks=masks.flip(-1))(shape).item() == pytest.approx(30, rel=1e-4)


def test_an_instance_without_a_sure_anchor_has_its_best_one() -> None:
    small = torch.zeros(1, *SIDES, dtype=torch.uint8)
    small[0, 6:8, 10:12] = 1
    loss = said()
    one = DetectionLoss(
        *(SIDES, loss.anchors, torch.zeros(1, 4), torch.zeros(1, 4, 4), loss.proposals[:1]),
        *(torch.full((1, 4), NOBODY), loss.scores[:1], loss.refined[:1], loss.masks[:1], 0.0),
    )
    value = one(small).item()
    best = encode(torch.tensor([6.0, 10, 8, 12]), torch.tensor(BOX))
    classes = 4 * math.log(2)  # of four anchors one is positive, three overlap less than 0.3
    ways = sum(b * b / 2 if b < 1 else b - 0.5 for b in best.abs().tolist())
    assert value == pytest.approx(classes + ways, rel=1e-4)


def test_gradients_are_finite_without_tumour() -> None:
    loss = said(1.0)
    parts = [torch.zeros(2, 4, requires_grad=True), torch.zeros(2, 4, 4, requires_grad=True)]
    value = replace(loss, objectness=parts[0], offsets=parts[1], scores=parts[0], refined=parts[1])(labels())
    value.sum().backward()
    assert all(part.grad.isfinite().all() for part in parts)
    assert parts[1].grad[1].abs().max() == 0


def test_labels_of_other_sides_are_brought_to_those_of_the_images() -> None:
    twice = labels().repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(said(2.0)(twice), said(2.0)(labels()))


def test_offsets_of_the_loss_lead_where_boxes_are_decoded() -> None:
    loss = said()
    torch.testing.assert_close(
        decode(loss.refined[0, :1], loss.proposals[0, :1], SIDES)[0], torch.tensor(BOX)
    )

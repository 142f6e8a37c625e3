"""Boxes by hand: where anchors lie, offsets there and back, overlaps, suppression, reading and pasting."""

from __future__ import annotations

import pytest
import torch

from fedbrats.models.boxes import NOBODY, anchors, best, decode, encode, overlaps, paste, roi_align

UNEQUAL = (32, 64)  # sides, so that an exchange of the axes shows


def test_anchors_lie_around_the_middles_of_their_cells() -> None:
    found = anchors([(2, 4), (1, 2)], UNEQUAL, (8, 16), (1.0, 4.0))
    assert found.shape == (2 * (8 + 2), 4)
    assert found[0].tolist() == [4, 4, 12, 12]  # the first cell has its middle at (8, 8)
    assert found[1].tolist() == [0, 6, 16, 10]  # four times as long along the first side
    assert found[2].tolist() == [4, 20, 12, 28]  # the second index of the cell comes first
    assert found[16].tolist() == [8, 8, 24, 24]


def test_offsets_by_hand_and_back() -> None:
    reference, box = torch.tensor([0.0, 0.0, 10.0, 20.0]), torch.tensor([5.0, 10.0, 25.0, 20.0])
    by_hand = torch.tensor([1.0, 0.25, 0.693147, -0.693147])  # (15 - 5) / 10, (15 - 10) / 20, log 2, log 1/2
    torch.testing.assert_close(encode(box, reference), by_hand)
    torch.testing.assert_close(decode(by_hand, reference, UNEQUAL), box)


def test_boxes_are_cut_at_the_edges_and_never_empty() -> None:
    reference = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    far = torch.tensor([[9.0, 90.0, 0.0, 0.0], [-9.0, 0.0, 0.0, 50.0], [0.0, 0.0, -50.0, -50.0]])
    found = decode(far, reference.expand(3, -1), UNEQUAL)
    assert found.isfinite().all()
    assert found[0].tolist() == [31, 63, 32, 64]
    assert found[1].tolist() == [0, 0, 1, 64]
    assert ((found[:, 2:] - found[:, :2]) >= 1).all()


def test_overlaps_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [0, 0, 0, 0]])
    found = overlaps(boxes, boxes)
    assert found[0].tolist() == pytest.approx([1, 4 / 28, 0, 0])  # those that only touch share nothing
    assert found[3].tolist() == [0, 0, 0, 0]


def test_suppression_is_greedy() -> None:
    """B overlaps A and is dropped, so C, which overlaps B alone, stays; monai's gives the same."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 3, 10, 13], [0, 6, 10, 16], [20, 20, 30, 30]]])
    found, scores = best(boxes, torch.tensor([[0.9, 0.8, 0.7, 0.95]]), 4, 0.4, among=4)
    assert scores.tolist()[0] == [pytest.approx(0.95), pytest.approx(0.9), pytest.approx(0.7), NOBODY]
    assert torch.equal(found[0, :3], boxes[0, [3, 0, 2]])
    assert best(boxes, torch.tensor([[0.9, 0.8, 0.7, 0.95]]), 4, 0.4, among=2)[0].shape == (1, 2, 4)


def test_suppression_agrees_with_monai() -> None:
    from monai.data.box_utils import non_max_suppression

    generator = torch.Generator().manual_seed(0)
    low = 40 * torch.rand(3, 60, 2, generator=generator)
    boxes = torch.cat([low, low + 4 + 20 * torch.rand(3, 60, 2, generator=generator)], -1)
    scores = torch.rand(3, 60, generator=generator)
    found, ranks = best(boxes, scores, 60, 0.3, among=60)
    for index in range(3):
        kept = non_max_suppression(boxes[index], scores[index], 0.3)
        number = int((ranks[index] > NOBODY).sum())
        assert 5 < number == len(kept) < 60
        assert torch.equal(found[index, :number], boxes[index, kept])


def test_a_box_reads_what_lies_in_it() -> None:
    """A map that says where each of its cells is: the cells of a box read the places of their middles."""
    maps = []
    for step in (4, 8):
        a = (torch.arange(UNEQUAL[0] // step) + 0.5) * step
        b = (torch.arange(UNEQUAL[1] // step) + 0.5) * step
        maps.append(torch.stack(torch.meshgrid(a, b, indexing="ij"))[None] + (1000 if step == 8 else 0))
    boxes = torch.tensor([[[8.0, 12.0, 16.0, 20.0], [8.0, 16.0, 24.0, 32.0]]])
    found = roi_align(maps, boxes, UNEQUAL, (8, 16), 2)
    assert found.shape == (2, 2, 2, 2)
    torch.testing.assert_close(found[0, 0], torch.tensor([[10.0, 10.0], [14.0, 14.0]]))
    torch.testing.assert_close(found[0, 1], torch.tensor([[14.0, 18.0], [14.0, 18.0]]))
    torch.testing.assert_close(
        found[1, 0], 1000 + torch.tensor([[12.0, 12.0], [20.0, 20.0]])
    )  # of the coarser map


def test_a_mask_is_pasted_into_its_box() -> None:
    masks = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    found = paste(masks, torch.tensor([[[2.0, 8.0, 10.0, 24.0]]]), UNEQUAL)[0, 0]
    assert found.shape == UNEQUAL
    inside = torch.zeros(UNEQUAL, dtype=torch.bool)
    inside[2:10, 8:24] = True
    assert found[~inside].abs().max() == 0
    assert found[4, 12] == pytest.approx(1 - (1 - 1 / 8) / 16)  # 1/8 and 1/16 of the way to the next cells
    assert found[8, 20] == pytest.approx(1)
    assert found[3, 21] < 0.1  # the corner that the mask leaves out
    assert found[8:, 8:10].sum() > 0


def test_no_image_changes_the_boxes_of_another() -> None:
    generator = torch.Generator().manual_seed(1)
    low = 20 * torch.rand(2, 30, 2, generator=generator)
    boxes = torch.cat([low, low + 8], -1)
    scores = torch.rand(2, 30, generator=generator)
    together = best(boxes, scores, 6, 0.5, 20)
    alone = best(boxes[:1], scores[:1], 6, 0.5, 20)
    assert torch.equal(together[0][:1], alone[0])
    assert torch.equal(together[1][:1], alone[1])

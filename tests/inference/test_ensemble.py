"""Averages, votes and STAPLE of small masks, worked out by hand or by a second program."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from fedbrats.inference import ensemble
from fedbrats.inference.ensemble import combine, staple
from fedbrats.inference.predict import Prediction, vote_of_channels
from fedbrats.tasks.segmentation import labels_from_probabilities


def regions(*rows: list[float], spread: float | None = None, passes: int = 1) -> Prediction:
    """One row of voxels per channel, as a volume [C, n, 1, 1]."""
    p = torch.tensor(rows)[:, :, None, None]
    return Prediction(p, None if spread is None else torch.full_like(p, spread), passes)


def values(prediction: Prediction) -> list[list[float]]:
    return prediction.probabilities[:, :, 0, 0].double().numpy().round(6).tolist()


def test_average_of_regions_and_spread_over_members() -> None:
    a = regions([0.9, 0.2], [0.6, 0.1], [0.4, 0.0])
    b = regions([0.5, 0.6], [0.2, 0.5], [0.2, 0.2])
    found = combine([a, b], "average")
    assert values(found) == [[0.7, 0.4], [0.4, 0.3], [0.3, 0.1]]
    np.testing.assert_allclose(
        found.spread[:, :, 0, 0], [[0.2, 0.2], [0.2, 0.2], [0.1, 0.1]], atol=1e-6
    )  # half the distance of two
    assert found.passes == 2


def test_average_of_classes_keeps_the_classes() -> None:
    """Labels are the argmax of the mean: NCR 0.3, ED 0.45, although the first member alone says NCR."""
    a = regions([0.1], [0.6], [0.3], [0.0])
    b = regions([0.4], [0.0], [0.6], [0.0])
    found = combine([a, b], "average")
    assert values(found) == [[0.25], [0.3], [0.45], [0.0]]
    assert labels_from_probabilities(found.probabilities).ravel().tolist() == [2]
    np.testing.assert_allclose(found.spread[:, 0, 0, 0], [0.15, 0.3, 0.0], atol=1e-6)  # of WT, TC, ET


def test_a_region_is_averaged_over_those_that_predict_it() -> None:
    whole = regions([0.9, 0.1])
    three = regions([0.5, 0.5], [0.8, 0.2], [0.6, 0.1])
    classes = regions([0.2, 1.0], [0.1, 0.0], [0.4, 0.0], [0.3, 0.0])  # WT 0.8, TC 0.4, ET 0.3
    found = combine([whole, three, classes], "average")
    assert values(found) == [[0.733333, 0.2], [0.6, 0.1], [0.45, 0.05]]
    np.testing.assert_allclose(found.spread[1, 0, 0, 0], 0.2, atol=1e-6)
    assert values(combine([whole, regions([0.4, 0.2])], "average")) == [[0.65, 0.15]]


def test_spread_adds_what_members_say_of_themselves() -> None:
    """Two members of two passes each: 0.7 +- 0.1 and 0.5 +- 0.3, that is 0.6, 0.8, 0.2, 0.8."""
    found = combine([regions([0.7], spread=0.1, passes=2), regions([0.5], spread=0.3, passes=2)], "average")
    assert found.spread.item() == pytest.approx(np.std([0.6, 0.8, 0.2, 0.8]))
    assert found.passes == 4


def test_vote_counts_heads_and_average_counts_conviction() -> None:
    members = [regions([p], [0.0], [0.0]) for p in (0.6, 0.6, 0.0)]
    assert labels_from_probabilities(combine(members, "vote").probabilities).item() == 2
    assert labels_from_probabilities(combine(members, "average").probabilities).item() == 0


@pytest.mark.parametrize("how", ["average", "vote", "staple"])
def test_uncertainty_sees_the_mean_however_labels_are_made(how: str) -> None:
    """Three members that agree on nothing being there at 0.4 have not become certain by voting."""
    found = combine([regions([p, 0.0]) for p in (0.45, 0.4, 0.35)], how)
    np.testing.assert_allclose(found.by_region[0, :, 0, 0], [0.4, 0.0], atol=1e-6)
    assert not labels_from_probabilities(found.probabilities).any()


def test_ties_go_to_the_mean_probability() -> None:
    members = [regions([0.9, 0.6], [0.0, 0.0], [0.0, 0.0]), regions([0.3, 0.2], [0.0, 0.0], [0.0, 0.0])]
    labels = labels_from_probabilities(combine(members, "vote").probabilities)
    assert labels.ravel().tolist() == [2, 0]  # means 0.6 and 0.4


def test_vote_is_about_label_masks_region_by_region() -> None:
    """One member each for NCR, ED and ET: all see tumour, two a core, one enhancement. The answer is NCR."""
    members = [
        regions([0.0], [0.9], [0.1], [0.0]),
        regions([0.0], [0.1], [0.9], [0.0]),
        regions([0.0], [0.1], [0.0], [0.9]),
    ]
    found = combine(members, "vote")
    assert labels_from_probabilities(found.probabilities).item() == 1
    # ET alone is background in a label mask (the merge of regions), so this member does not vote for it
    lone = regions([0.1], [0.1], [0.9])
    assert labels_from_probabilities(combine([lone, lone], "vote").probabilities).item() == 0


def test_three_runs_of_one_plane_vote_as_three_planes_of_one_run_wherever_two_agree() -> None:
    """All 64 triples of labels: classes are elected by planes, regions by members."""
    triples = np.array(list(product(range(4), repeat=3)))
    sure = (
        torch.nn.functional.one_hot(torch.from_numpy(triples), 4).float() * 0.6 + 0.1
    )  # [triple, member, class]
    each = [sure[:, member].T[:, :, None, None] for member in range(3)]
    of_members = labels_from_probabilities(
        combine([Prediction(p) for p in each], "vote").probabilities
    ).ravel()
    of_planes = labels_from_probabilities(vote_of_channels(torch.stack(each))).ravel()
    for triple, by_member, by_plane in zip(triples, of_members, of_planes, strict=True):
        label, votes = Counter(triple.tolist()).most_common(1)[0]
        if votes > 1:
            assert by_member == by_plane == label, triple


def test_one_member_is_returned_and_none_refused() -> None:
    alone = regions([0.3], spread=0.1, passes=3)
    assert combine([alone], "vote") is alone
    with pytest.raises(ValueError, match="at least one"):
        combine([], "average")
    with pytest.raises(ValueError, match=r"inference\.combine=mean"):
        combine([alone, alone], "mean")


def test_notes_are_kept_once() -> None:
    p = torch.zeros(1, 1, 1, 1)
    found = combine([Prediction(p, notes=("a",)), Prediction(p, notes=("a", "b"))], "average")
    assert found.notes == ("a", "b")


def expectation_maximisation(masks: np.ndarray, rounds: int = 400) -> np.ndarray:
    """Warfield's equations for binary masks [raters, voxels], starting from sensitivity = specificity = 0.99999."""
    prior = masks.mean()
    sensitivity = specificity = np.full((len(masks), 1), 0.99999)
    for _ in range(rounds):
        yes = prior * np.where(masks, sensitivity, 1 - sensitivity).prod(0)
        no = (1 - prior) * np.where(masks, 1 - specificity, specificity).prod(0)
        w = yes / (yes + no)
        sensitivity = (masks * w).sum(1, keepdims=True) / w.sum()
        specificity = (~masks * (1 - w)).sum(1, keepdims=True) / (1 - w).sum()
    return w


def test_staple_is_warfields() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((6, 7, 8), bool)
    truth[1:5, 2:6, 2:7] = True
    masks = np.stack([truth ^ (rng.random(truth.shape) < error) for error in (0.05, 0.1, 0.35)])
    by_hand = expectation_maximisation(masks.reshape(3, -1)).reshape(truth.shape)
    found = staple(masks)
    np.testing.assert_allclose(found, by_hand, atol=1e-4)
    assert found.dtype == np.float32
    # It trusts the good raters: fewer wrong voxels than the majority has.
    wrong = int(((found > 0.5) != truth).sum())
    assert wrong <= int(((masks.sum(0) > 1) != truth).sum())


def test_one_step_of_staple_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three raters of voxels 0 to 7. Two of three see each of 0, 1 and 2; each sees one voxel more, alone.

    The first guess is the share of votes: 2/3, 1/3 and 0, in all 3 inside and 5 outside. Of the inside each rater has
    2/3 + 2/3 + 1/3, of the outside 1/3 + 2 2/3 + 2: sensitivity 5/9, specificity 11/15. The prior is 9 of 24, 3/8.
    Inside and outside then weigh, for two, one and no vote,
        3/8 (5/9)^2 (4/9)  5/8 (4/15)^2 (11/15)   625 : 396
        3/8 (5/9) (4/9)^2  5/8 (4/15) (11/15)^2   500 : 1089
        3/8 (4/9)^3        5/8 (11/15)^3          1600 : 11979
    """
    masks = np.zeros((3, 8), bool)
    for rater, seen in enumerate(([0, 1, 3], [0, 2, 4], [1, 2, 5])):
        masks[rater, seen] = True
    expected = np.array([625 / 1021] * 3 + [500 / 1589] * 3 + [1600 / 13579] * 2)
    monkeypatch.setattr(ensemble, "ITERATIONS", 1)
    found = staple(masks.reshape(3, 2, 2, 2))
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("bad", ["nothing", "everything", "the opposite", "noise"])
def test_two_raters_who_agree_are_believed_whatever_the_third_says(bad: str) -> None:
    """With the two at sensitivity and specificity 1 the expectation is what they say, and gives the same again."""
    truth = np.zeros((5, 5, 5), bool)
    truth[1:4, 1:4, 1:4] = True
    noise = np.random.default_rng(2).random(truth.shape) < 0.5
    third = {
        "nothing": np.zeros_like(truth),
        "everything": np.ones_like(truth),
        "the opposite": ~truth,
        "noise": noise,
    }
    found = staple(np.stack([truth, third[bad], truth]))
    np.testing.assert_allclose(found, truth.astype(float), atol=1e-4)


def test_staple_believes_a_good_minority_where_a_vote_cannot() -> None:
    """Two raters are wrong in a voxel of 20, each in others; three see half of the voxels at random."""
    rng = np.random.default_rng(3)
    truth = np.zeros((10, 10, 10), bool)
    truth[2:8, 2:8, 2:8] = True
    good = [truth ^ (rng.random(truth.shape) < 0.05) for _ in range(2)]
    bad = [rng.random(truth.shape) < 0.5 for _ in range(3)]
    masks = np.stack([*good, *bad])
    wrong = ((staple(masks) > 0.5) != truth).mean()
    assert wrong < 0.1
    assert ((masks.sum(0) > 2) != truth).mean() > 0.12


@pytest.mark.parametrize("value", [False, True])
def test_staple_of_agreement_is_that(value: bool) -> None:
    masks = np.full((3, 2, 2, 2), value)
    assert (staple(masks) == float(value)).all()
    same = np.zeros((2, 3, 3, 3), bool)
    same[:, 1] = True
    assert (staple(same) == same[0]).all()


def test_staple_with_empty_masks_is_defined() -> None:
    masks = np.zeros((3, 4, 4, 4), bool)
    masks[0, 0, 0, 0] = True
    found = staple(masks)
    assert np.isfinite(found).all()
    assert not (found > 0.5).any()  # one of three
    two = staple(masks[:2])
    assert two[0, 0, 0] == 0.5
    assert not (two > 0.5).any()


def test_a_bad_region_of_a_member_does_not_cost_its_others() -> None:
    """The third member sees ET everywhere in the tumour and the same whole tumour: WT is believed, ET is not."""
    rows = torch.zeros(3, 3, 40)  # members, WT to ET, voxels
    rows[:, 0, :20] = 1.0
    rows[:, 1, :10], rows[:2, 2, :5] = 1.0, 1.0
    rows[2, 1:, :20] = 1.0
    members = [Prediction(row.reshape(3, 40, 1, 1)) for row in rows]
    labels = labels_from_probabilities(combine(members, "staple").probabilities).ravel()
    assert labels.tolist() == [3] * 5 + [1] * 5 + [2] * 10 + [0] * 20


def test_averages_of_folds_are_fused() -> None:
    """What DeepSeg with nnU-Net prints: the mean of the folds first, then STAPLE. Two folds of three carry a voxel."""
    first = combine([regions([p, 0.0, 0.0, 0.0]) for p in (0.9, 0.9, 0.0)], "average")  # 0.6
    others = [regions([0.9, 0.0, 0.9, 0.0]), regions([0.9, 0.0, 0.0, 0.0])]
    found = combine([first, *others], "staple")
    assert (found.probabilities[0].ravel() > 0.5).tolist() == [True, False, False, False]
    assert found.passes == 5


def test_staple_of_members_region_by_region() -> None:
    rng = np.random.default_rng(1)
    members = []
    for _ in range(3):
        wt = torch.from_numpy(rng.random((6, 6, 6)) * 0.3)
        wt[2:5, 2:5, 2:5] += 0.6
        tc = wt * torch.from_numpy((rng.random((6, 6, 6)) < 0.8).astype(float))
        members.append(Prediction(torch.stack([wt, tc, torch.zeros_like(wt)]).float()))
    found = combine(members, "staple").probabilities
    wt = np.stack([(m.probabilities[0] > 0.5).numpy() for m in members])
    tc = np.stack([(m.probabilities[1] > 0.5).numpy() for m in members])
    np.testing.assert_array_equal(found[0], staple(wt))
    np.testing.assert_array_equal(found[1], staple(tc))
    assert not found[2].any()

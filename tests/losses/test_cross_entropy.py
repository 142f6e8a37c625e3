"""Cross-entropy, its worst voxels and its focal form, by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from fedbrats.losses.cross_entropy import CrossEntropy, voxel_cross_entropy
from fedbrats.losses.focal import Focal
from fedbrats.losses.topk import TopK
from fedbrats.tasks.segmentation import targets
from tests.losses.samples import SHAPES, logit, sample

# Probabilities 0.8, 0.6, 0.5, 0.1 of a region at truth 1, 1, 0, 0: those of the truth are 0.8, 0.6, 0.5, 0.9.
LOGITS, TARGET = logit([0.8, 0.6, 0.5, 0.1]).view(1, 1, 2, 2), torch.tensor([1.0, 1, 0, 0]).view(1, 1, 2, 2)
TRUE = [0.8, 0.6, 0.5, 0.9]
# Two voxels of four classes; the true ones, 2 and 0, have 0.5 and 0.2.
CLASSES = torch.tensor([[0.1, 0.2, 0.5, 0.2], [0.2, 0.2, 0.3, 0.3]]).log().T.reshape(1, 4, 2, 1)
LABELS = torch.tensor([2, 0]).view(1, 2, 1)


def close(value: torch.Tensor, expected: float) -> None:
    torch.testing.assert_close(value, torch.tensor([expected]), rtol=1e-5, atol=1e-6)


def test_cross_entropy_by_hand() -> None:
    close(CrossEntropy()(LOGITS, TARGET), -sum(map(log, TRUE)) / 4)
    close(CrossEntropy()(CLASSES, targets(LABELS, 4)), -(log(0.5) + log(0.2)) / 2)


@pytest.mark.parametrize("sides", SHAPES.values(), ids=SHAPES)
def test_categorical_cross_entropy_is_that_of_the_labels(sides: tuple[int, ...]) -> None:
    logits, target = sample(4, sides)
    expected = torch.nn.functional.cross_entropy(logits, target.int().argmax(1), reduction="none")
    torch.testing.assert_close(CrossEntropy()(logits, target), expected.flatten(1).mean(1))


# Worst voxels


def test_topk_by_hand() -> None:
    """Two of four voxels are the share 0.5: those with 0.5 and 0.6."""
    close(TopK(0.5)(LOGITS, TARGET), -(log(0.5) + log(0.6)) / 2)
    close(TopK(0.01)(LOGITS, TARGET), -log(0.5))  # at least one
    close(TopK(0.5)(CLASSES, targets(LABELS, 4)), -log(0.2))


def test_topk_ranks_the_regions_of_a_sample_together() -> None:
    """Eight candidates; a quarter of them are two, both in the second region, which is all wrong."""
    logits = torch.cat(
        [LOGITS, logit([0.4, 0.1, 0.2, 0.3]).view(1, 1, 2, 2), torch.full((1, 1, 2, 2), -9.0)], 1
    )
    target = torch.cat([TARGET, torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)], 1)
    close(TopK(2 / 12)(logits, target), -(log(0.1) + log(0.2)) / 2)


def test_topk_of_everything_is_cross_entropy() -> None:
    for channels in (1, 3, 4):
        logits, target = sample(channels)
        torch.testing.assert_close(TopK(1.0)(logits, target), CrossEntropy()(logits, target))


def test_only_the_worst_voxels_learn() -> None:
    logits = LOGITS.clone().requires_grad_()
    TopK(0.5)(logits, TARGET).sum().backward()
    assert logits.grad is not None
    assert (logits.grad.flatten() != 0).tolist() == [False, True, True, False]


# Focal


def test_focal_by_hand() -> None:
    """Lin et al.: alpha 0.25 at the two lesion voxels, 0.75 at the others, each times (1 - p_t)^2."""
    terms = [(1 - p) ** 2 * -log(p) for p in TRUE]
    close(Focal(0.25, 2)(LOGITS, TARGET), (0.25 * (terms[0] + terms[1]) + 0.75 * (terms[2] + terms[3])) / 4)
    close(Focal(None, 2)(LOGITS, TARGET), sum(terms) / 4)
    terms = [(1 - p) * -log(p) for p in TRUE]
    close(Focal(0.25, 1, balanced=False)(LOGITS, TARGET), 0.25 * sum(terms) / 4)


def test_softmax_focal_by_hand() -> None:
    """The first voxel is lesion (0.25, p = 0.5), the second background (0.75, p = 0.2)."""
    target = targets(LABELS, 4)
    lesion, background = 0.25 * 0.5 * -log(0.5), 0.75 * 0.8 * -log(0.2)
    close(Focal(0.25, 1)(CLASSES, target), (lesion + background) / 2)
    close(Focal(0.25, 1, balanced=False)(CLASSES, target), 0.25 * (0.5 * -log(0.5) + 0.8 * -log(0.2)) / 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_focal_without_focus_is_cross_entropy(channels: int) -> None:
    """What the printed equation says of gamma = 0 and alpha = 1."""
    logits, target = sample(channels)
    for loss in (Focal(None, 0), Focal(1.0, 0, balanced=False)):
        torch.testing.assert_close(loss(logits, target), CrossEntropy()(logits, target))


def test_the_less_sure_of_the_truth_the_more_it_costs() -> None:
    """The printed factor p_t^gamma would give p log p, which falls again below p = 1/e."""
    values = [
        Focal(0.25, 1.0)(logit([p]).view(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item() for p in (0.5, 0.2, 0.01)
    ]
    assert values == sorted(values)


@pytest.mark.parametrize("gamma", [0, 1, 1.5, 2])
@pytest.mark.parametrize("channels", [1, 4])
def test_focal_learns_at_any_certainty(gamma: float, channels: int) -> None:
    logits, target = sample(channels)
    logits = (logits.sign() * 50).requires_grad_()
    Focal(0.25, gamma)(logits, target).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_half_precision_is_left_at_the_door() -> None:
    logits, target = sample(3)
    for loss in (CrossEntropy(), TopK(), Focal()):
        half = logits.bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(half, target)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(half.float(), target))


def test_values_of_voxels_have_no_channel_for_classes() -> None:
    assert voxel_cross_entropy(*sample(4)).shape == (3, 5, 4, 3)
    assert voxel_cross_entropy(*sample(3)).shape == (3, 3, 5, 4, 3)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: TopK(0), "loss.share"),
        (lambda: TopK(1.1), "loss.share"),
        (lambda: TopK(float("nan")), "loss.share"),
        (lambda: Focal(alpha=1.1), "loss.alpha"),
        (lambda: Focal(alpha=-0.1), "loss.alpha"),
        (lambda: Focal(gamma=-1), "loss.gamma"),
        (lambda: Focal(gamma=0.5), "loss.gamma"),
        (lambda: Focal(gamma=float("inf")), "loss.gamma"),
    ],
)
def test_bad_values_are_named(make: type, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}"):
        make()

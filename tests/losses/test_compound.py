"""Sums of losses and a loss per region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import nn

from fedbrats.losses.compound import DiceCE, PerRegion, WeightedSum
from fedbrats.losses.cross_entropy import CrossEntropy
from fedbrats.losses.dice import Dice
from fedbrats.losses.focal import Focal
from fedbrats.tasks.segmentation import targets
from tests.losses.samples import sample

SMOOTH = 1e-5


def by_formula(
    logits: torch.Tensor, target: torch.Tensor, dice: float, entropy: float, squared: bool
) -> np.ndarray:
    x, t = logits.double().numpy(), target.numpy().astype(float)
    p = 1 / (1 + np.exp(-x))
    axes = (2, 3, 4)
    sizes = (p**2 + t**2) if squared else (p + t)
    soft_dice = 1 - (2 * (p * t).sum(axes) + SMOOTH) / (sizes.sum(axes) + SMOOTH)
    cross_entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axes)
    return dice * soft_dice.mean(1) + entropy * cross_entropy.mean(1)


@pytest.mark.parametrize(
    ("dice", "entropy", "squared"),
    [(1, 1, False), (1, 1, True), (0.3, 2, False), (1, 0, True), (0, 1, False)],
)
def test_dice_ce_is_the_formula(dice: float, entropy: float, squared: bool) -> None:
    logits, target = sample(3)
    value = DiceCE(dice, entropy, squared)(logits, target)
    np.testing.assert_allclose(value.numpy(), by_formula(logits, target, dice, entropy, squared), rtol=1e-5)


@pytest.mark.parametrize("included", [False, True])
def test_dice_ce_of_classes_has_both_parts(included: bool) -> None:
    logits, target = sample(4)
    expected = Dice(include_background=included)(logits, target) + CrossEntropy()(logits, target)
    torch.testing.assert_close(DiceCE(include_background=included)(logits, target), expected)


def test_perfect_and_empty_patches() -> None:
    target = targets(torch.zeros(1, 4, 4, 4, dtype=torch.uint8), 3)
    sure = torch.full((1, 3, 4, 4, 4), -30.0)
    assert DiceCE()(sure, target).item() < 1e-3  # nothing there, nothing found
    assert DiceCE()(-sure, target).item() > 10


def test_regions_do_not_compete_and_monais_dice_ce_makes_them() -> None:
    """Inside enhancing tumour all three regions are present, so large equal logits are right: loss 0.

    MONAI's DiceCELoss takes a softmax over the three channels there: -3 log(1/3) / ... > 1 at the very same answer.
    """
    target = targets(torch.full((1, 4, 4, 4), 3, dtype=torch.uint8), 3).float()
    right = torch.full((1, 3, 4, 4, 4), 30.0)
    assert DiceCE()(right, target).item() < 1e-3
    assert DiceCELoss(sigmoid=True)(right, target).item() > 1


def test_one_regions_logits_do_not_move_the_others() -> None:
    logits, target = sample(3)
    changed = logits.clone()
    changed[:, 0] += 3
    grads = [
        torch.autograd.grad(DiceCE()(x, target).sum(), x)[0]
        for x in (logits.requires_grad_(), changed.requires_grad_())
    ]
    torch.testing.assert_close(grads[0][:, 1:], grads[1][:, 1:])
    assert not torch.allclose(grads[0][:, 0], grads[1][:, 0])


@pytest.mark.parametrize("weights", [(-1, 1), (1, -1), (0, 0)])
def test_bad_weights_are_named(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^loss\.(dice|cross_entropy)"):
        DiceCE(*weights)


# Any losses


def test_weighted_sum_adds_up() -> None:
    logits, target = sample(3)
    loss = WeightedSum({"dice": 0.2, "focal": 0.8}, {"focal": Focal(None, 2.0), "dice": Dice()})
    expected = 0.2 * Dice()(logits, target) + 0.8 * Focal(None, 2.0)(logits, target)
    torch.testing.assert_close(loss(logits, target), expected)


def test_dice_plus_focal_is_monais_on_the_mean() -> None:
    logits, target = sample(3)
    loss = WeightedSum({"dice": 1, "focal": 1}, {"focal": Focal(None, 2.0), "dice": Dice()})
    monai = DiceFocalLoss(sigmoid=True, gamma=2.0)(logits, target.float())
    torch.testing.assert_close(loss(logits, target).mean(), monai)


@pytest.mark.parametrize(
    ("weights", "key"),
    [
        ({"dice": 1}, "loss.weights names"),
        ({"dice": 1, "topk": 1}, "loss.weights names"),
        ({"dice": 1, "focal": 1, "topk": 1}, "loss.weights names"),
        ({"dice": 1, "focal": -1}, "loss.weights.focal"),
        ({"dice": 0, "focal": 0}, "loss.weights: "),
    ],
)
def test_weights_that_do_not_fit_are_named(weights: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}"):
        WeightedSum(weights, {"focal": Focal(), "dice": Dice()})


# A loss per region


class Constant(nn.Module):
    """A value per sample, whatever is predicted."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert logits.shape[1] == target.shape[1] == 1
        return torch.full((len(logits),), self.value)


def test_each_region_has_its_loss() -> None:
    """WT, TC, ET are channels 0, 1, 2, and each is weighed alike."""
    logits, target = sample(3)
    loss = PerRegion(ET=CrossEntropy(), WT=DiceCE(), TC=Dice())
    expected = [
        DiceCE()(logits[:, :1], target[:, :1]),
        Dice()(logits[:, 1:2], target[:, 1:2]),
        CrossEntropy()(logits[:, 2:], target[:, 2:]),
    ]
    torch.testing.assert_close(loss(logits, target), torch.stack(expected).mean(0))
    assert PerRegion(Constant(3), Constant(6), Constant(30))(logits, target).tolist() == [13, 13, 13]


def test_a_whole_tumour_network_uses_the_loss_of_wt_only() -> None:
    assert PerRegion(Constant(3), Constant(6), Constant(30))(*sample(1)).tolist() == [3, 3, 3]


def test_classes_cannot_be_taken_apart() -> None:
    with pytest.raises(ValueError, match=r"sigmoid regions.*model\.out_channels=3"):
        PerRegion(Dice(), Dice(), Dice())(*sample(4))

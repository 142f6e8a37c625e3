"""The loss against a NumPy formula, and the trap in MONAI's own combination."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss

from fedbrats.data.regions import regions_from_labels
from fedbrats.losses import DiceCE, region_targets

SMOOTH = 1e-5  # MONAI's, in numerator and denominator


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 3, 5, 4, 3, generator=rng, dtype=torch.float64)
    labels = torch.randint(0, 4, (3, 5, 4, 3), generator=rng)
    return logits, region_targets(labels)


def by_formula(
    logits: torch.Tensor, target: torch.Tensor, dice: float, entropy: float, squared: bool
) -> np.ndarray:
    x, t = logits.numpy(), target.numpy().astype(float)
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
def test_value_is_that_of_the_formula(dice: float, entropy: float, squared: bool) -> None:
    logits, target = example()
    value = DiceCE(dice, entropy, squared)(logits, target)
    assert value.shape == (3,)
    np.testing.assert_allclose(value.numpy(), by_formula(logits, target, dice, entropy, squared), rtol=1e-6)


def test_a_patch_does_not_depend_on_its_batch_mates() -> None:
    logits, target = example()
    together = DiceCE()(logits, target)
    for i in range(3):
        torch.testing.assert_close(DiceCE()(logits[i : i + 1], target[i : i + 1])[0], together[i])


def test_perfect_and_empty_patches() -> None:
    target = region_targets(torch.zeros(1, 4, 4, 4, dtype=torch.uint8))
    sure = torch.full((1, 3, 4, 4, 4), -30.0)
    assert DiceCE()(sure, target).item() < 1e-3  # nothing there, nothing found
    assert DiceCE()(-sure, target).item() > 10


def test_targets_are_the_regions() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (2, 5, 6, 7)).astype(np.uint8)
    expected = np.stack([regions_from_labels(volume) for volume in labels])
    found = region_targets(torch.from_numpy(labels))
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found.numpy(), expected)


def test_regions_do_not_compete_and_monais_dice_ce_makes_them() -> None:
    """Inside enhancing tumour all three regions are present, so large equal logits are right: loss 0.

    MONAI's DiceCELoss takes a softmax over the three channels there: -3 log(1/3) / ... > 1 at the very same answer.
    """
    target = region_targets(torch.full((1, 4, 4, 4), 3, dtype=torch.uint8)).float()
    right = torch.full((1, 3, 4, 4, 4), 30.0)
    assert DiceCE()(right, target).item() < 1e-3
    assert DiceCELoss(sigmoid=True)(right, target).item() > 1


def test_one_regions_logits_do_not_move_the_others() -> None:
    logits, target = example()
    logits.requires_grad_()
    changed = logits.detach().clone()
    changed[:, 0] += 3
    changed.requires_grad_()
    for x in (logits, changed):
        DiceCE()(x, target).sum().backward()
    assert logits.grad is not None
    assert changed.grad is not None
    torch.testing.assert_close(logits.grad[:, 1:], changed.grad[:, 1:])
    assert not torch.allclose(logits.grad[:, 0], changed.grad[:, 0])


@pytest.mark.parametrize("weights", [(-1, 1), (1, -1), (0, 0)])
def test_bad_weights_are_named(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"loss\.dice and loss\.cross_entropy"):
        DiceCE(*weights)

"""Dice, Generalised Dice and Tversky by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from monai.losses import DiceLoss, GeneralizedDiceLoss
from omegaconf import OmegaConf

from fedbrats.losses.dice import Dice, GeneralizedDice, Tversky
from fedbrats.tasks.segmentation import targets
from tests.losses.samples import logit, sample

# One region of four voxels: p = 0.8, 0.6, 0.5, 0.1 and t = 1, 1, 0, 0, so TP = 1.4, FP = 0.6, FN = 0.6.
P, T = [0.8, 0.6, 0.5, 0.1], [1.0, 1.0, 0.0, 0.0]
LOGITS, TARGET = logit(P).view(1, 1, 2, 2), torch.tensor(T).view(1, 1, 2, 2)


def close(value: torch.Tensor, expected: float) -> None:
    torch.testing.assert_close(value, torch.tensor([expected]), rtol=1e-4, atol=1e-6)


def test_dice_by_hand() -> None:
    close(Dice()(LOGITS, TARGET), 1 - 2 * 1.4 / (2.0 + 2.0))
    # squared: 0.64 + 0.36 + 0.25 + 0.01 = 1.26
    close(Dice(squared=True)(LOGITS, TARGET), 1 - 2 * 1.4 / (1.26 + 2.0))


def test_tversky_by_hand() -> None:
    close(Tversky(0.3, 0.7)(LOGITS, TARGET), 1 - 1.4 / (1.4 + 0.3 * 0.6 + 0.7 * 0.6))
    more = torch.cat([TARGET[..., :1, :], torch.ones(1, 1, 1, 2)], 2)  # all four voxels: TP 2, FP 0, FN 2
    close(Tversky(0.3, 0.7)(LOGITS, more), 1 - 2 / (2 + 0.7 * 2))
    torch.testing.assert_close(Tversky(0.5, 0.5)(LOGITS, TARGET), Dice()(LOGITS, TARGET), rtol=1e-4, atol=0)


@pytest.mark.parametrize("power", [1, 2])
def test_generalized_dice_by_hand(power: int) -> None:
    """Regions of 2 and 1 voxels: relative weights 1/2^power and 1; the second has p = 0.4, 0.3, 0.2, 0.1."""
    logits = torch.cat(
        [LOGITS, logit([0.4, 0.3, 0.2, 0.1]).view(1, 1, 2, 2), torch.full((1, 1, 2, 2), -99.0)], 1
    )
    target = torch.cat([TARGET, torch.tensor([1.0, 0, 0, 0]).view(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)], 1)
    w = 0.5**power
    close(GeneralizedDice(power)(logits, target), 1 - 2 * (w * 1.4 + 0.4) / (w * 4.0 + 2.0))


def test_generalized_dice_is_monais_where_all_regions_are_present() -> None:
    logits, target = sample(3)
    monai = GeneralizedDiceLoss(sigmoid=True, reduction="none")(logits, target.float()).flatten()
    torch.testing.assert_close(GeneralizedDice()(logits, target), monai, rtol=1e-3, atol=1e-4)
    logits, target = sample(4)
    monai = GeneralizedDiceLoss(softmax=True, reduction="none")(logits, target.float()).flatten()
    torch.testing.assert_close(GeneralizedDice()(logits, target), monai, rtol=1e-3, atol=1e-4)


def test_generalized_dice_punishes_what_is_found_where_nothing_is_and_monais_does_not() -> None:
    logits, target = torch.full((1, 3, 4, 4), 3.0, requires_grad=True), torch.zeros(1, 3, 4, 4)
    close(GeneralizedDice()(logits, target), 1.0)
    assert GeneralizedDiceLoss(sigmoid=True)(logits, target).item() == 0


def test_generalized_dice_of_a_large_region_reaches_one_and_monais_does_not() -> None:
    logits = torch.full((1, 1, 512, 512), -30.0)
    logits[..., 256:] = 30.0
    target = (logits < 0).float()
    close(GeneralizedDice()(logits, target), 1.0)
    assert GeneralizedDiceLoss(sigmoid=True)(logits, target).item() < 0.7


@pytest.mark.parametrize("loss", [Dice(), Dice(True), GeneralizedDice(), Tversky()])
def test_background_counts_only_when_asked(loss: torch.nn.Module) -> None:
    logits, target = sample(4)
    values = []
    for included in (False, True):
        loss.include_background = included
        values.append(loss(logits, target))
    assert (values[0] != values[1]).all()


def test_softmax_dice_is_the_mean_over_the_three_tumour_classes() -> None:
    logits, target = sample(4)
    p, t = logits.softmax(1), target.float()
    ratios = 2 * (p * t).sum((2, 3, 4)) / (p + t).sum((2, 3, 4))
    torch.testing.assert_close(Dice()(logits, target), 1 - ratios[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        Dice(include_background=True)(logits, target), 1 - ratios.mean(1), rtol=1e-4, atol=1e-5
    )


def test_monais_dice_without_reduction_has_a_value_per_region() -> None:
    """What the mean in `Dice` rests on."""
    logits, target = sample(3)
    assert DiceLoss(sigmoid=True, reduction="none")(logits, target.float()).shape == (3, 3, 1, 1, 1)


@pytest.mark.parametrize("squared", [False, True])
def test_a_small_region_in_a_large_patch_is_exact_enough(squared: bool) -> None:
    """Sums of float32 over 64^3 voxels against the same sums in float64."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 64, 64, 64, generator=generator) - 7
    target = torch.zeros(1, 1, 64, 64, 64)
    target[..., :5, :5, :4] = 1
    p, t, power = logits.double().sigmoid(), target.double(), 2 if squared else 1
    truth = 1 - 2 * (p * t).sum() / (p**power + t**power).sum()
    assert Dice(squared)(logits, target).item() == pytest.approx(truth.item(), abs=1e-3)


def test_logits_and_target_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss: logits \(1, 3, 4, 4\) and target \(1, 1, 4, 4\)"):
        Dice()(torch.zeros(1, 3, 4, 4), targets(torch.zeros(1, 4, 4), 1))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Tversky(alpha=-1), "loss.alpha"),
        (lambda: Tversky(beta=float("nan")), "loss.beta"),
        (lambda: Tversky(0, 0), "loss.alpha and loss.beta"),
        (lambda: GeneralizedDice(power=-1), "loss.power"),
        (lambda: GeneralizedDice(power="two"), "loss.power"),
    ],
)
def test_bad_values_are_named(make: type, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}"):
        make()


def test_the_dice_of_counts_is_the_printed_one_and_a_half() -> None:
    """Multi-annotator uncertainty, BrainLes 2021, Equations 3 and 4: minus the mean over all N + 1 classes of
    sum(p m) / (sum p^2 + sum m^2), without a factor of 2."""
    conf = Path(__file__).resolve().parents[2] / "conf" / "loss"
    loss = instantiate(OmegaConf.load(conf / "dice_counts.yaml"))
    logits, target = sample(4)
    p, m = logits.double().softmax(1).flatten(2), target.double().flatten(2)
    printed = -((p * m).sum(2) / (p.square().sum(2) + m.square().sum(2))).mean(1)
    torch.testing.assert_close(loss(logits, target).double(), printed + 0.5, rtol=0, atol=1e-6)

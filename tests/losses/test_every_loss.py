"""What holds for every file of conf/loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from fedbrats.losses.in_round import Loss, in_round
from tests.losses.samples import SHAPES, sample

CONF = Path(__file__).resolve().parents[2] / "conf" / "loss"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
SIGMOID_ONLY = {"dice_bce_per_region", "dice_region_weights"}
CASES = [
    pytest.param(name, channels, sides, id=f"{name}-{channels}-{kind}")
    for name in NAMES
    for channels in (1, 3, 4)
    for kind, sides in SHAPES.items()
    if not (channels == 4 and name in SIGMOID_ONLY)
]


def configured(name: str) -> nn.Module:
    """The loss of conf/loss/`name`."""
    found: nn.Module = instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    return found


def build(name: str) -> Loss:
    """The same late in a run, so that no part of it is off."""
    return in_round(configured(name), 9, 10)


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, target).sum(), logits)[0]


def test_the_files_are_those_that_are_promised() -> None:
    assert set(NAMES) == {
        "dice",
        "dice_squared",
        "dice_ce",
        "dice_ce_squared",
        "dice_focal",
        "focal_dice",
        "focal",
        "tversky",
        "generalized_dice",
        "generalized_dice_inverse",
        "dice_ce_weighted",
        "cross_entropy",
        "cross_entropy_nodes",
        "topk",
        "dice_topk",
        "dice_bce_per_region",
        "dice_region_weights",
        "dice_boundary",
        "dice_semantic",
        "dice_counts",
        "topology_aware",
        "hausdorff",
        "ce_hausdorff",
        "dice_hausdorff",
        "dice_ce_even",
        "dice_ce_squared_even",
    }


@pytest.mark.parametrize(("name", "channels", "sides"), CASES)
def test_a_sample_does_not_depend_on_its_batch_mates(
    name: str, channels: int, sides: tuple[int, ...]
) -> None:
    """Exactly, in value and gradient: patient-level privacy rests on it."""
    loss = build(name)
    logits, target = sample(channels, sides)
    others, other_target = sample(channels, sides, seed=1)
    others[1], other_target[1] = logits[1], target[1]
    mine, yours = loss(logits, target), loss(others, other_target)
    assert mine.shape == (3,)
    assert mine.dtype == torch.float32
    assert mine[1] == yours[1]
    assert (mine[[0, 2]] != yours[[0, 2]]).all()
    torch.testing.assert_close(mine[1:2], loss(logits[1:2], target[1:2]))
    assert torch.equal(gradient(loss, logits, target)[1], gradient(loss, others, other_target)[1])


@pytest.mark.parametrize(("name", "channels", "sides"), CASES)
def test_the_target_may_be_bool_or_float_and_the_logits_half(
    name: str, channels: int, sides: tuple[int, ...]
) -> None:
    loss = build(name)
    logits, target = sample(channels, sides)
    torch.testing.assert_close(loss(logits, target), loss(logits, target.float()), rtol=0, atol=0)
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), target), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "channels", "sides"), CASES)
@pytest.mark.parametrize("tumour", [True, False])
def test_values_and_gradients_are_finite_when_sure(
    name: str, channels: int, sides: tuple[int, ...], tumour: bool
) -> None:
    loss = build(name)
    logits, target = sample(channels, sides)
    if not tumour:
        target = torch.zeros_like(target)
        target[:, 0] = channels == 4  # all background
    for extreme in (logits, 50 * logits.sign(), torch.full_like(logits, 50), torch.full_like(logits, -50)):
        assert loss(extreme, target).isfinite().all()
        assert gradient(loss, extreme, target).isfinite().all()


@pytest.mark.parametrize(("name", "channels", "sides"), CASES)
def test_going_downhill_leads_to_the_truth(name: str, channels: int, sides: tuple[int, ...]) -> None:
    """Free logits that follow the gradient end at the target: signs, ramps and activations are right."""
    loss = build(name)
    start, target = sample(channels, sides, batch=2)
    logits = (0.1 * start).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    first = loss(logits, target).mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, target).sum().backward()
        optimizer.step()
    assert loss(logits, target).mean().item() < first
    found = logits.argmax(1) == target.int().argmax(1) if channels == 4 else (logits > 0) == target
    assert found.float().mean() > 0.95


@pytest.mark.parametrize("name", sorted(set(NAMES) - SIGMOID_ONLY))
def test_classes_and_regions_take_different_ways(name: str) -> None:
    """A constant added to all logits changes nothing for a softmax, and does for sigmoids."""
    loss = build(name)
    logits, target = sample(4)
    torch.testing.assert_close(loss(logits + 3, target), loss(logits, target), rtol=1e-4, atol=1e-5)
    logits, target = sample(3)
    changed = (loss(logits + 3, target) - loss(logits, target)).abs() > 1e-3
    assert (
        changed.sum() >= len(changed) - 1
    )  # of a sample, two parts of a loss may happen to make up for each other


def test_the_settings_of_the_papers_arrive() -> None:
    jonsson = configured("focal_dice")
    focal = jonsson.terms["focal"]
    assert jonsson.weights == {"focal": 0.8, "dice": 0.2}
    assert (focal.factor, focal.sigmoid.gamma, focal.sigmoid.alpha) == (0.25, 1.0, None)
    assert configured("dice_topk").terms["topk"].share == 0.1
    assert configured("dice_topk").terms["dice"].dice.squared_pred
    assert configured("dice_squared").dice.squared_pred
    assert (configured("dice_boundary").start, configured("dice_boundary").end) == (0.01, 0.5)
    assert configured("dice_boundary").after.scaled
    hausdorff = configured("ce_hausdorff")
    assert hausdorff.weights == {"cross_entropy": 1.0, "hausdorff": 1.0}
    one = hausdorff.terms["hausdorff"]
    assert (one.mean, one.maximum, one.alpha, one.beta) == (0.1, 0.01, 1.0, 1.0)
    assert type(configured("dice_bce_per_region").terms["ET"]).__name__ == "CrossEntropy"

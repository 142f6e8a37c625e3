"""The Hausdorff loss: a value by hand, and what it is for."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedbrats.losses.hausdorff_dt import Hausdorff
from tests.losses.samples import logit
from tests.tiny import ROOT


def test_the_value_by_hand() -> None:
    """A row of six pixels, truth the first two, predicted the first alone.

    Distances to the other side of the truth 2 1 1 2 3 4, of the prediction 1 1 2 3 4 5; divided by 4 and 5.
    """
    p = torch.tensor([0.9, 0.4, 0.1, 0.2, 0.1, 0.3])
    t = torch.tensor([1.0, 1, 0, 0, 0, 0])
    truth = torch.tensor([2.0, 1, 1, 2, 3, 4]) / 4
    found = torch.tensor([1.0, 1, 2, 3, 4, 5]) / 5
    expected = ((p - t) ** 2 * (truth**2 + found**2)).mean()
    logits = logit(p.tolist()).reshape(1, 1, 1, 6)
    value = Hausdorff()(logits, t.reshape(1, 1, 1, 6))
    torch.testing.assert_close(value, expected.reshape(1))


def test_a_far_error_costs_more_than_a_near_one() -> None:
    target = torch.zeros(2, 1, 12, 12, 12)
    target[:, :, 2:5, 2:5, 2:5] = 1
    logits = 20 * (2 * target - 1)
    logits[0, 0, 5, 3, 3] = 20.0  # touches the region
    logits[1, 0, 10, 10, 10] = 20.0
    near, far = Hausdorff()(logits, target).tolist()
    assert 0 < near < far / 3
    assert Hausdorff()(20 * (2 * target - 1), target).tolist() == pytest.approx([0, 0], abs=1e-8)


def test_channels_and_samples_are_for_themselves() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, 6)
    target = (torch.randn(2, 3, 6, 6, 6) > 0).float()
    target[0, 1] = 0  # an empty region
    loss = Hausdorff()
    single = [loss(logits[:, c : c + 1], target[:, c : c + 1]) for c in range(3)]
    torch.testing.assert_close(loss(logits, target), torch.stack(single).mean(0))
    torch.testing.assert_close(loss(logits[1:], target[1:]), loss(logits, target)[1:])


def test_it_is_learnt_from_beside_dice() -> None:
    loss = instantiate(OmegaConf.load(ROOT / "conf" / "loss" / "dice_hausdorff.yaml"))
    assert loss.weights == {"dice": 1.0, "hausdorff": 1.0}
    target = torch.zeros(1, 4, 8, 8, 8)
    target[:, 0], target[:, 2, 2:5], target[:, 0, 2:5] = 1, 1, 0
    logits = torch.zeros_like(target, requires_grad=True)
    loss(logits, target).sum().backward()
    assert (logits.grad[:, 2, 2:5] < 0).all()


def test_a_bad_power_is_named() -> None:
    with pytest.raises(ValueError, match=r"loss\.power=-1"):
        Hausdorff(-1)

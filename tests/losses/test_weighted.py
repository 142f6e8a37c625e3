"""Weighted cross-entropy and Dice: values by hand, the same for classes and regions."""

from __future__ import annotations

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedbrats.losses.compound import DiceCE
from fedbrats.losses.weighted import WeightedCEDice
from tests.losses.samples import logit, sample
from tests.tiny import ROOT

ONES = {"classes": [1, 1, 1, 1], "regions": [1, 1, 1]}


def test_the_equations_by_hand_for_exclusive_classes() -> None:
    """Two pixels, truth background and ET, softmax (0.7, 0.1, 0.1, 0.1) and (0.2, 0.1, 0.1, 0.6)."""
    p = torch.tensor([[0.7, 0.2], [0.1, 0.1], [0.1, 0.1], [0.1, 0.6]])[None]
    y = torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 1]])[None]
    ln = math.log
    entropy = [
        -(ln(0.7) + ln(0.8)) / 2,  # background: p of the first, 1 - p of the second
        -(ln(0.9) + ln(0.9)) / 2,
        -(ln(0.9) + ln(0.9)) / 2,
        -(ln(0.9) + ln(0.6)) / 2,
    ]
    dice = [1 - 2 * 0.7 / 1.9, 1, 1, 1 - 2 * 0.6 / 1.7]
    weights = [1, 5, 4, 5]
    expected = sum(w * (0.25 * e + 0.75 * d) for w, e, d in zip(weights, entropy, dice, strict=True)) / 4
    found = WeightedCEDice(0.25, weights, [4, 5, 5])(p.log() + 2.0, y)
    assert found.item() == pytest.approx(expected, abs=1e-3)  # smoothing of 1e-5 where a class is absent


def test_the_equations_by_hand_for_regions() -> None:
    logits = logit([0.8, 0.3, 0.6]).reshape(1, 3, 1)
    ln = math.log
    expected = (4 * -ln(0.8) + 5 * -ln(0.7) + 5 * -ln(0.6)) / 3
    loss = WeightedCEDice(1.0, [1, 5, 4, 5], [4, 5, 5])
    target = torch.tensor([1.0, 0, 1]).reshape(1, 3, 1)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)
    assert loss(logits[:, :1], target[:, :1]).item() == pytest.approx(4 * -ln(0.8), rel=1e-5)


def test_equal_weights_on_regions_are_the_usual_pair() -> None:
    logits, target = sample(3)
    torch.testing.assert_close(2 * WeightedCEDice(0.5, **ONES)(logits, target), DiceCE()(logits, target))


def test_the_file_has_the_printed_numbers() -> None:
    loss = instantiate(OmegaConf.load(ROOT / "conf" / "loss" / "topology_aware.yaml"))
    assert (loss.share, loss.classes, loss.regions) == (0.5, (1, 5, 4, 5), (4, 5, 5))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 1.5}, r"loss\.share=1\.5"),
        ({"classes": [1, 1, 1]}, r"loss\.classes=\[1, 1, 1\]: 4 weights"),
        ({"regions": [1, -1, 1]}, r"loss\.regions\[1\]=-1"),
        ({"regions": [0, 0, 0]}, r"loss\.regions=\[0, 0, 0\]: not all may be zero"),
    ],
)
def test_bad_settings_are_named(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WeightedCEDice(**{"share": 0.5, **ONES, **settings})

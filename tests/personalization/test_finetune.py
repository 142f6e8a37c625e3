"""Fine-tuning after the last round: what moves, and what must not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.config.targets import ConfigError
from fedbrats.personalization.base import Personalization, snapshot
from fedbrats.personalization.finetune import Finetune
from fedbrats.personalization.norms import NoNorms
from tests.personalization.networks import PATCH, configured
from tests.personalization.toy_work import ConvWork, Point, ToyWork, conv_network

CONVOLUTIONS = {"0.weight", "4.weight", "4.bias", "6.weight", "6.bias"}
NORMS = {"1.weight", "1.bias", "5.weight", "5.bias"}
STATISTICS = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_three_steps_by_hand() -> None:
    """Rate 0.1 * 0.5 from 1 to target 3: the distance 2 shrinks by 0.95 per step."""
    work = ToyWork(Point(1.0), target=3.0)
    Finetune(steps=3, lr_factor=0.5).personal(work)
    assert work.x == pytest.approx(3 - 2 * 0.95**3, abs=1e-12)
    assert work.done == [("finetune", 3, 0.5)]
    assert work.state == {}


def test_the_rounds_are_plain_ones() -> None:
    tuned, plain = ConvWork(conv_network()), ConvWork(conv_network())
    assert Finetune().round(tuned) == Personalization().round(plain)
    assert tuned.done == [("train", 2, 1.0)]
    assert all(torch.equal(a, b) for a, b in zip(tuned.network.parameters(), plain.network.parameters()))
    for layers in ("all", "norm", "head"):
        assert Finetune(layers=layers).stays(conv_network(), PATCH) == ()
    assert not Finetune().keeps_state


@pytest.mark.parametrize(
    ("layers", "moves"),
    [
        ("all", CONVOLUTIONS | NORMS | STATISTICS),
        ("norm", NORMS | STATISTICS),
        ("head", {"6.weight", "6.bias"}),
    ],
)
def test_what_moves(layers: str, moves: set[str]) -> None:
    network = conv_network()
    network[4].bias.requires_grad_(False)  # frozen by the user: stays so
    before = snapshot(network)
    Finetune(steps=2, layers=layers).personal(ConvWork(network))
    after = snapshot(network)
    assert {name for name in before if not torch.equal(before[name], after[name])} == moves - {"4.bias"}
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["4.bias"]
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_norms_that_are_not_tuned_normalise_as_in_evaluation() -> None:
    """The head is tuned on the features that the final model has at the test."""
    network, modes = conv_network(), []

    def note(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if output.device.type == "cpu":  # not while the head is searched
            modes.append(module.training)

    network[1].register_forward_hook(note)
    Finetune(steps=2, layers="head").personal(ConvWork(network))
    assert modes == [False, False]
    modes.clear()
    Finetune(steps=2, layers="norm").personal(ConvWork(network))
    assert modes == [True, True]


def test_nothing_to_tune_is_found_before_the_rounds() -> None:
    network = nn.Sequential(nn.Conv3d(4, 2, 1), nn.InstanceNorm3d(2))
    with pytest.raises(NoNorms, match=r"personalization\.layers=norm: Sequential has no.*layers=all or head"):
        Finetune(layers="norm").stays(network, PATCH)
    with pytest.raises(NoNorms, match=r"no normalisation layer with weights"):
        Finetune(layers="norm").stays(nn.Sequential(nn.BatchNorm3d(4, affine=False)), PATCH)
    with pytest.raises(ConfigError, match="heads"):
        Finetune(layers="head").stays(nn.Conv3d(3, 1, 1), PATCH)  # takes no four sequences
    assert Finetune(layers="norm").stays(configured("segresnet"), PATCH) == ()


def test_options_and_privacy() -> None:
    bad = (
        {"steps": 0},
        {"lr_factor": 0.0},
        {"lr_factor": float("nan")},
        {"lr_factor": float("inf")},
        {"layers": "bn"},
    )
    for options in bad:
        with pytest.raises(ValueError, match=rf"personalization\.{next(iter(options))}"):
            Finetune(**options)
    assert Finetune().unsound_with_dp() is None


def test_one_step_is_enough() -> None:
    assert Finetune(steps=1).steps == 1

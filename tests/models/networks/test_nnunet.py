"""nnU-Net: printed size, shapes, deep supervision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.nnunet import nnunet
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nnunet(channels=(8, 16, 24))


def test_has_the_printed_number_of_parameters() -> None:
    with torch.device("meta"):
        assert count(nnunet()) == 31_198_176  # Jabareen and Lukassen, Table 1


def test_layers_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        network = nnunet()
    kernels = {
        (type(m), m.kernel_size) for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)
    }
    assert kernels == {(nn.Conv3d, (3, 3, 3)), (nn.Conv3d, (1, 1, 1)), (nn.ConvTranspose3d, (2, 2, 2))}
    norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm3d)]
    assert len(norms) == 22  # two per level, six levels down and five up
    assert all(m.affine for m in norms)
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.01}


def test_training_returns_a_list_from_full_size_down_and_evaluation_one_tensor() -> None:
    with torch.device("meta"):
        network, images = nnunet(), torch.zeros(1, 4, 64, 32, 96)
    shapes = [tuple(logits.shape) for logits in network(images)]
    assert shapes == [(1, 3, 64 // s, 32 // s, 96 // s) for s in (1, 2, 4, 8, 16)]
    assert network.eval()(images).shape == (1, 3, 64, 32, 96)


def test_evaluation_is_the_first_output_of_training() -> None:
    network, images = small(), torch.randn(1, 4, 16, 8, 8)
    with torch.no_grad():  # instance norm does the same in both modes
        torch.testing.assert_close(network.train()(images)[0], network.eval()(images))


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 8)) < 1e-9


def test_weights_start_as_he_says() -> None:
    weight = nnunet().encoder[2][1].conv.weight.detach()
    fan_in = 128 * 27
    assert float(weight.std()) == pytest.approx((2 / (1 + 0.01**2) / fan_in) ** 0.5, rel=0.02)


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


@pytest.mark.parametrize("training", [True, False])
def test_sides_that_do_not_fit_are_named(training: bool) -> None:
    network = small().train(training)
    with pytest.raises(
        ValueError, match=r"input sides \[8, 6, 8\]: sides must be multiples of 4; set train.patch"
    ):
        network(torch.zeros(1, 4, 8, 6, 8))
    with pytest.raises(ValueError, match=r"input sides \[4, 4, 4\]: one voxel is left .* must be 8 or more"):
        network(torch.zeros(1, 4, 4, 4, 4))
    assert nnunet().multiple == (32, 32, 32)


@pytest.mark.parametrize(("key", "value"), [("channels", [8]), ("convolutions", 0)])
def test_impossible_sizes_are_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"model\.{key}="):
        nnunet(**{key: value})  # type: ignore[arg-type]


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("nnunet")
    assert count(network) == 31_198_176
    assert rules == {"patch": [128, 128, 128], "multiple": 32, "normalise": "zscore"}
    network, rules = configured("nnunet", "small")
    assert head_modules(network, rules["patch"]) == ("heads.0", "heads.1", "heads.2")
    assert 200_000 < count(network) < 1_500_000
    assert rules["multiple"] == 8
    assert [tuple(o.shape[2:]) for o in network(torch.zeros(1, 4, *rules["patch"]))] == [
        (s, s, s) for s in (32, 16, 8)
    ]

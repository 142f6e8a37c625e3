"""Late fusion: a B0 of its own for each sequence, and one head."""

from __future__ import annotations

import torch
from monai.networks.nets.efficientnet import EfficientNetBN
from torch import nn

from fedbrats.models.facts import mixing_modules
from fedbrats.models.networks.late_fusion_efficientnet import late_fusion_efficientnet
from tests.models.network_checks import configured, count, parameters_with_two_names


def small(channels: int = 4, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return late_fusion_efficientnet(channels, width=0.5, stages=3, **settings)


def test_size_is_four_times_b0_without_its_head_and_one_head() -> None:
    with torch.device("meta"):
        b0 = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=1, num_classes=1)
        full, rules = configured("late_fusion_efficientnet")
    assert count(full) == 4 * (count(b0) - 1281) + 4 * 1280 + 1
    assert rules["patch"] == [128, 128, 128]


def test_no_sequence_meets_another_before_the_head() -> None:
    network, image = small().eval(), torch.randn(1, 4, 16, 16, 16, requires_grad=True)
    width = network.last.in_features // 4
    for own in range(4):
        with torch.no_grad():
            network.last.weight.zero_()
            network.last.weight[:, own * width : (own + 1) * width] = 1
        (found,) = torch.autograd.grad(network(image).sum(), image)
        assert [bool(g.any()) for g in found[0]] == [channel == own for channel in range(4)]


def test_branches_start_apart_and_follow_the_modalities() -> None:
    network = small(2)
    assert len(network.branches) == 2
    stems = [next(branch.parameters()) for branch in network.branches]
    assert not torch.equal(*stems)
    assert network(torch.randn(3, 2, 16, 16, 16)).shape == (3, 1)
    assert not parameters_with_two_names(network)


def test_group_norm_mixes_nobody() -> None:
    assert mixing_modules(small(1))
    assert not mixing_modules(small(1, norm="group"))

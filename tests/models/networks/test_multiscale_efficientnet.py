"""Multiscale EfficientNet: B7 as published, and the block beside it."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.efficientnet import EfficientNetBN
from torch import nn
from torch.nn.functional import conv2d, max_pool2d

from fedbrats.models.facts import mixing_modules
from fedbrats.models.networks.multiscale_efficientnet import multiscale_efficientnet
from tests.models.network_checks import configured, count, parameters_with_two_names


def small(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return multiscale_efficientnet(width=0.5, stages=4, scales=(16, 24), **settings)


def test_size_is_b7_with_the_block_and_one_dense_layer() -> None:
    with torch.device("meta"):
        twin = EfficientNetBN("efficientnet-b7", pretrained=False)
        b7 = EfficientNetBN("efficientnet-b7", pretrained=False, in_channels=1, num_classes=1)
        full, _ = configured("multiscale_efficientnet")
    assert round(count(twin) / 1e6) == 66  # million, Tan and Le, Table 2
    block = (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64)
    assert count(full) == count(b7) - (2560 + 1) + block + (2560 + 64 + 1)


def test_low_quality_features_are_pooled_before_each_convolution() -> None:
    network, images = small(), torch.randn(2, 4, 32, 32)
    first, second = network.low[1], network.low[4]
    x = conv2d(max_pool2d(images, 2), first.weight, first.bias, padding=1).clamp(min=0)
    x = conv2d(max_pool2d(x, 2), second.weight, second.bias, padding=1).clamp(min=0)
    assert x.shape == (2, 24, 8, 8)
    network.eval()
    with torch.no_grad():
        joined = torch.cat([network.high(images), x.flatten(2).mean(2)], dim=1)
        torch.testing.assert_close(network(images), joined @ network.last.weight.T + network.last.bias)


def test_both_features_reach_the_output() -> None:
    network, images = small(), torch.randn(4, 4, 32, 32)
    network(images).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.low.parameters())
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_group_norm_mixes_nobody() -> None:
    assert mixing_modules(small())
    assert not mixing_modules(small(norm="group"))


def test_settings() -> None:
    with torch.device("meta"):
        _, rules = configured("multiscale_efficientnet")
        network, _ = configured("multiscale_efficientnet", "small")
    assert (rules["patch"], rules["modalities"], rules["normalise"]) == ([256, 256], ["t1"], "clip")
    assert count(network) < 200_000
    with pytest.raises(ValueError, match=r"model\.scales=\[\]"):
        multiscale_efficientnet(scales=())

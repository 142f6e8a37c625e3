"""The probability that every region starts with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.residual_unet import residual_unet
from fedbrats.models.networks.segresnet import segresnet
from fedbrats.models.prior import set_output_prior


@pytest.mark.parametrize("make", [segresnet, residual_unet])
def test_untrained_networks_start_near_the_prior(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    low, high = make(prior=0.01).eval(), make(prior=0.5).eval()
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        assert torch.sigmoid(low(image)).median() < 0.03
        assert 0.3 < torch.sigmoid(high(image)).median() < 0.7


def test_the_bias_is_the_log_odds() -> None:
    layer = nn.Conv3d(2, 3, 1)
    set_output_prior(layer, 3, 0.1)
    torch.testing.assert_close(layer.bias.detach(), torch.full((3,), -2.1972246))  # ln(0.1 / 0.9)


@pytest.mark.parametrize("prior", [0.02, 0.5, 0.9])
def test_exclusive_classes_start_with_the_tumour_at_the_prior(prior: float) -> None:
    layer = nn.Conv2d(2, 4, 1)
    nn.init.zeros_(layer.weight)
    set_output_prior(layer, 4, prior)
    with torch.no_grad():
        start = layer(torch.randn(1, 2, 3, 3)).softmax(1)[0, :, 0, 0]
    third = prior / 3  # background, NCR, ED, ET
    torch.testing.assert_close(start, torch.tensor([1 - prior, third, third, third]))


@pytest.mark.parametrize("channels", [1, 3])
def test_sigmoid_outputs_all_start_at_the_prior(channels: int) -> None:
    layer = nn.Conv2d(2, channels, 1)
    set_output_prior(layer, channels, 0.02)
    torch.testing.assert_close(layer.bias.detach().sigmoid(), torch.full((channels,), 0.02))


def test_a_network_without_an_output_bias_is_named() -> None:
    with pytest.raises(ValueError, match="Conv2d has no convolution with 3 outputs and a bias"):
        set_output_prior(nn.Conv2d(2, 3, 1, bias=False), 3, 0.1)


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0])
def test_a_prior_that_is_no_probability_is_named(prior: float) -> None:
    with pytest.raises(ValueError, match=r"model\.prior"):
        segresnet(prior=prior)

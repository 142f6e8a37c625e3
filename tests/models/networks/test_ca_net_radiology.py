"""Radiology branch of CA-Net: the size of a DenseNet worked out by hand, and the printed sides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.facts import mixing_modules
from fedbrats.models.networks.ca_net_radiology import ca_net_radiology
from tests.models.network_checks import configured, count


def test_size_is_the_sum_of_the_documented_layers() -> None:
    """No bias but the dense layer's; a norm before every convolution has two arrays."""
    total, channels = 343 * 4 * 64 + 2 * 64, 64
    for stage, layers in enumerate((4, 8, 12, 12)):
        for _ in range(layers):
            total += 2 * channels + channels * 128 + 2 * 128 + 27 * 128 * 32
            channels += 32
        if stage < 3:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    assert channels == 664
    with torch.device("meta"):
        full, rules = configured("ca_net_radiology")
    assert count(full) == total + 2 * 664 + 664 + 1 == 5_854_889
    assert (rules["patch"], rules["crop"]) == ([128, 128, 128], "tumour")


def test_features_have_the_printed_four_voxels_in_a_row() -> None:
    with torch.device("meta"):
        network, _ = configured("ca_net_radiology")
        found = network.features(torch.zeros(1, 4, 128, 128, 128))
    assert tuple(found.shape[2:]) == (4, 4, 4)


def test_weights_are_xaviers() -> None:
    torch.manual_seed(0)
    first = next(
        m for m in ca_net_radiology(width=16, growth=8, layers=(1,)).modules() if isinstance(m, nn.Conv3d)
    )
    limit = (6 / (343 * (4 + 16))) ** 0.5
    assert 0.99 * limit < float(first.weight.detach().abs().max()) <= limit


def test_group_norm_mixes_nobody() -> None:
    settings = {"width": 16, "growth": 8, "layers": (2, 2)}
    assert mixing_modules(ca_net_radiology(**settings))
    assert not mixing_modules(ca_net_radiology(norm="group", **settings))


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"model\.width=8"):
        ca_net_radiology(width=8)

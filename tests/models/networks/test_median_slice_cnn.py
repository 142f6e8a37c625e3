"""CNN of median slices: PyTorch's tutorial, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from fedbrats.models.networks.median_slice_cnn import median_slice_cnn
from tests.models.network_checks import configured, count


def test_size_is_the_sum_of_the_seven_layers() -> None:
    """Valid 5x5 convolutions and poolings: 224, 220, 110, 106, 53 pixels in a row."""
    convolutions = (25 * 1 * 6 + 6) + (25 * 6 * 16 + 16)
    dense = (16 * 53 * 53 * 120 + 120) + (120 * 84 + 84) + (84 + 1)
    with torch.device("meta"):
        assert count(median_slice_cnn(1)) == convolutions + dense == 5_406_221


def test_it_is_the_tutorials_network() -> None:
    torch.manual_seed(0)
    network, slices = median_slice_cnn(2, sides=(20, 24), dense=(7, 5)), torch.randn(3, 2, 20, 24)
    weights = list(network.parameters())
    assert len(weights) == 10  # of two convolutions and three dense layers

    def features(x: Tensor) -> Tensor:
        for index in (0, 2):
            x = max_pool2d(conv2d(x, weights[index], weights[index + 1]).clamp(min=0), 2)
        x = x.flatten(1)
        for index in (4, 6):
            x = (x @ weights[index].T + weights[index + 1]).clamp(min=0)
        return x

    logits = features(slices) @ weights[8].T + weights[9]
    torch.testing.assert_close(network(slices), logits)
    with torch.no_grad():
        weights[9].fill_(-1)
    assert (network(slices) < 0).all()  # no ReLU on the output


def test_configured_sizes() -> None:
    with torch.device("meta"):
        (full, rules), (small, _) = configured("median_slice_cnn"), configured("median_slice_cnn", "small")
    assert (rules["patch"], rules["modalities"], rules["crop"]) == ([224, 224], ["flair"], "brain")
    assert count(full) == 5_406_221 > 10 * count(small)


def test_other_sides_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[20, 16\].* made for \[16, 20\]; set model\.input\.patch"
    ):
        median_slice_cnn(sides=(16, 20))(torch.zeros(1, 4, 20, 16))
    with pytest.raises(ValueError, match=r"model\.sides=\[12, 40\]: nothing is left"):
        median_slice_cnn(sides=(12, 40))

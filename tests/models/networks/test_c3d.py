"""C3D: its published size, the 8192 features that are printed, and the locally connected layer."""

from __future__ import annotations

import pytest
import torch

from fedbrats.models.networks.c3d import LocallyConnected, c3d, frames
from tests.models.network_checks import configured, count


def test_convolutions_are_those_of_c3d() -> None:
    """With dense layers of 4096, 4096 and 101 (UCF-101) they make the 78.4 million that C3D is known to have."""
    pairs = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    by_hand = sum(27 * i * o + o for i, o in pairs)
    dense = (8192 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 101 + 101)
    with torch.device("meta"):
        network = c3d()
    assert count(network.extractor) == by_hand == 27_655_936
    assert by_hand + dense == 78_409_573


def test_the_printed_input_gives_the_printed_features() -> None:
    with torch.device("meta"):
        network, rules = configured("c3d")
        assert rules["patch"] == [112, 112, 48]
        found = network.extractor(frames(torch.zeros(4, 112, 112, 48)))
        assert network(torch.zeros(2, 4, 112, 112, 48)).shape == (2, 1)
    assert tuple(found.shape[1:]) == (512, 1, 4, 4)
    fusion = 4 * 8192 + 1
    dense = (8192 * 256 + 256) + (256 * 128 + 128) + (128 + 1)
    assert count(network) - count(network.extractor) == fusion + dense


def test_three_neighbouring_slices_are_the_colours_of_a_frame() -> None:
    volume = torch.arange(6.0).expand(1, 2, 2, 6)  # the number of the slice
    clip = frames(volume)
    assert clip.shape == (1, 3, 2, 2, 2)
    assert clip[0, :, :, 0, 0].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_fusion_is_equation_3() -> None:
    layer = LocallyConnected(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))
        layer.bias.fill_(0.5)
        found = layer(torch.tensor([[[1.0, 1.0, 2.0], [0.0, 3.0, -1.0]]]))
    assert found.tolist() == [[1.5, 62.5, -23.5]]


def test_sequences_share_the_extractor_and_have_weights_of_their_own() -> None:
    torch.manual_seed(0)
    network = c3d(2, sides=(8, 8, 6), width=16, stages=2, dense=(8, 4), dropout=0.0).eval()
    image = torch.randn(1, 2, 8, 8, 6)
    with torch.no_grad():
        network.fusion[0].weight[1] = network.fusion[0].weight[0]
        torch.testing.assert_close(network(image), network(image.flip(1)))
        network.fusion[0].weight[1] = 0
        changed = image.clone()
        changed[:, 1] = 0
        assert torch.equal(network(image), network(changed))


def test_signal_reaches_the_dense_layers() -> None:
    torch.manual_seed(0)
    network = c3d(1, sides=(32, 32, 24), width=16)
    with torch.no_grad():
        found = network.extractor(frames(torch.randn(4, 32, 32, 24)))
    assert 0.1 < float(found.std()) < 10


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stages": 6}, r"model\.stages=6: must be 1 to 5"),
        ({"sides": (16, 16, 16)}, r"model\.sides=\[16, 16, 16\]: 3 slices make a frame"),
    ],
)
def test_wrong_settings_are_named(wrong: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        c3d(**wrong)


def test_other_sides_are_named() -> None:
    with pytest.raises(ValueError, match=r"made for \[8, 8, 6\]; set model\.input\.patch"):
        c3d(sides=(8, 8, 6), width=16, stages=1)(torch.zeros(1, 4, 8, 8, 9))

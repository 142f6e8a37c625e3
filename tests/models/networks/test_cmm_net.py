"""3D CMM-Net: every row of Table 1, the pyramids by hand, ReLU before batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbrats.models.networks.cmm_net import CMMNet, PyramidPooling, cmm_net
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)

# Table 1: convolutions or pyramid, dilation (0 = pyramid), channels in (of the row before), channels and side out.
TABLE_1 = [
    ("Conv1", 6, 4, 32, 128),
    ("PPM1", 0, 32, 64, 128),
    ("Conv2", 5, 96, 96, 64),
    ("PPM2", 0, 96, 192, 64),
    ("Conv3", 4, 288, 256, 32),
    ("PPM3", 0, 256, 512, 32),
    ("Conv4-1", 3, 768, 1024, 16),
    ("HPPM1", 0, 1024, 1024, 16),
    ("Conv4-2", 3, 1024, 1400, 16),
    ("HPPM2", 0, 1400, 1400, 16),
    ("Conv4-3", 3, 1400, 2048, 16),
    ("Conv5", 4, 2816, 256, 32),
    ("Conv6", 5, 544, 96, 64),
    ("Conv7", 6, 192, 32, 128),
    ("Conv-out", 1, 32, 4, 128),
]


def small(**arguments: int) -> CMMNet:
    torch.manual_seed(0)
    return cmm_net(channels=(8, 12), bottleneck=(16, 20, 24), pyramid=(1, 2), **arguments)


def test_every_row_of_table_1() -> None:
    found: list[tuple[int, int, int, int]] = []

    def block(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        first = next(m for m in module.modules() if isinstance(m, nn.Conv3d))
        pyramid = isinstance(module, PyramidPooling)
        dilation = 0 if pyramid else first.dilation[0]
        found.append((dilation, inputs[0].shape[1], output.shape[1], output.shape[2]))

    with torch.device("meta"):
        network = cmm_net()
        flat = [
            m
            for part in network.bottleneck
            for m in (part if isinstance(part[0], PyramidPooling) else [part])
        ]
        for module in (*network.encoder, *network.pyramids, *flat, *network.decoder, network.head):
            module.register_forward_hook(block)
        network(torch.zeros(1, 4, 128, 128, 128))
    # A PPM's output is its pyramid beside the features, so twice as wide as the pyramid.
    printed = [(d, i, o // 2 if name.startswith("PPM") else o, side) for name, d, i, o, side in TABLE_1]
    assert found == printed


def test_size_is_the_sum_of_table_1() -> None:
    def parameters(name: str, dilation: int, before: int, width: int) -> int:
        if name == "Conv-out":
            return before * width + width
        if dilation:  # two convolutions with bias, and two norms
            return 27 * (before + width) * width + 6 * width
        return before * before + before  # four convolutions to a quarter each

    expected = sum(parameters(*row[:4]) for row in TABLE_1)
    with torch.device("meta"):
        assert count(cmm_net()) == expected == 362_326_732


def test_a_pyramid_is_the_averages_of_parts_each_with_its_share_of_the_channels() -> None:
    block, features = PyramidPooling(4, (1, 2)), torch.randn(1, 4, 4, 4, 4)
    for conv in block.convolutions:
        assert conv.weight.shape == (2, 4, 1, 1, 1)
        nn.init.zeros_(conv.bias)
        with torch.no_grad():
            conv.weight.copy_(torch.eye(2, 4).reshape(2, 4, 1, 1, 1))  # the first two channels
    with torch.no_grad():
        found = block(features)
    whole = features[:, :2].mean((2, 3, 4), keepdim=True).expand(-1, -1, 4, 4, 4)
    torch.testing.assert_close(found[:, :2], whole)
    corner = features[:, :2, :2, :2, :2].mean((2, 3, 4))
    torch.testing.assert_close(found[:, 2:, 0, 0, 0], corner)
    # Linear in between: a quarter of the way from the middle of one half to that of the other.
    other = features[:, :2, 2:, :2, :2].mean((2, 3, 4))
    torch.testing.assert_close(found[:, 2:, 1, 0, 0], 0.75 * corner + 0.25 * other)


def test_features_are_joined_twice_with_their_pyramid() -> None:
    network, made, pooled = small().eval(), [], []
    network.encoder[0].register_forward_hook(lambda _, __, out: made.append(out))
    network.pyramids[0].register_forward_hook(lambda _, __, out: pooled.append(out))
    network.decoder[-1].register_forward_hook(lambda _, given, __: made.append(given[0]))
    with torch.no_grad():
        network(torch.randn(1, 4, 8, 8, 8))
    assert torch.equal(made[1][:, :24], torch.cat([made[0], pooled[0], made[0]], dim=1))


def test_relu_comes_before_batch_norm() -> None:
    for block in small().encoder:
        assert [type(m) for m in block] == [nn.Conv3d, nn.ReLU, nn.BatchNorm3d] * 2


def test_the_bottleneck_knows_of_the_whole_patch() -> None:
    network, images = small().eval(), torch.randn(1, 4, 64, 8, 8)
    other = images.clone()
    other[:, :, 60:] += 5
    found: list[Tensor] = []
    network.bottleneck[1][0].register_forward_hook(lambda _, __, out: found.append(out))
    with torch.no_grad():
        network(images)
        network(other)
    assert not torch.allclose(found[0][:, :, 0], found[1][:, :, 0])


@pytest.mark.parametrize("sides", [(8, 4, 12), (16, 16, 8)])
def test_logits_lie_on_the_grid_of_the_image(sides: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert small()(torch.randn(2, 4, *sides)).shape == (2, 4, *sides)
        assert small(out_channels=3).eval()(torch.randn(1, 4, *sides)).shape == (1, 3, *sides)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_background_starts_at_one_minus_the_prior() -> None:
    start = cmm_net(channels=(8,), bottleneck=(8,), prior=0.04).head.bias.softmax(0)
    torch.testing.assert_close(start.detach(), torch.tensor([0.96, 0.04 / 3, 0.04 / 3, 0.04 / 3]))


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4; set train.patch"
    ):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match=r"model\.channels=\[\]: name the widths of 1 to 5 levels"):
        cmm_net(channels=())
    with pytest.raises(ValueError, match=r"model\.channels=\[8, 8, 8, 8, 8, 8\]"):
        cmm_net(channels=(8,) * 6)
    with pytest.raises(ValueError, match=r"model\.bottleneck=\[\]"):
        cmm_net(bottleneck=())
    with pytest.raises(ValueError, match=r"model\.pyramid=\[0\]"):
        cmm_net(pyramid=(0,))
    with pytest.raises(ValueError, match=r"\[10, 15\] must be multiples of 4, the levels of model\.pyramid"):
        cmm_net(channels=(8, 10), bottleneck=(15, 7))


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("cmm_net")
    assert count(network) == 362_326_732
    assert rules == {"patch": [128, 128, 128], "multiple": 8, "normalise": "zscore"}
    network, rules = configured("cmm_net", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 100_000 < count(network) < 1_000_000
    assert rules["multiple"] == 8

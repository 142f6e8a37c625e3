"""Attention U-Net with CBAM: its layers counted by hand, both attentions as printed, supervision at full size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, interpolate

from fedbrats.models.networks.cbam_unet import CBAM, CBAMUNet, cbam_unet
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def small() -> CBAMUNet:
    torch.manual_seed(0)
    return cbam_unet(channels=(8, 16, 24), reduction=4)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def conv(before: int, width: int) -> int:  # 3x3x3 with bias, and the norm's two numbers per channel
        return 27 * before * width + 3 * width

    def attention(width: int) -> int:
        hidden = width // 16
        return (width + 1) * hidden + (hidden + 1) * width + 2 * 7**3 + 1

    widths = (48, 96, 192, 384)
    encoder = sum(conv(i, o) + conv(o, o) for i, o in zip((4, *widths), widths))
    bottom = 2 * conv(384, 384) + conv(2 * 384, 192)
    decoder = sum(conv(2 * w, w) + conv(w, o) for w, o in ((192, 96), (96, 48), (48, 48)))
    heads = sum(3 * w + 3 for w in (384, 192, 96, 48, 48))
    with torch.device("meta"):
        found = count(cbam_unet())
    assert found == encoder + bottom + decoder + heads + sum(map(attention, widths)) == 23_185_656


def test_training_returns_every_supervised_map_at_full_size_and_evaluation_the_final_one() -> None:
    with torch.device("meta"):
        network, images = cbam_unet(), torch.zeros(1, 4, 32, 16, 24)
    assert [tuple(logits.shape) for logits in network(images)] == [(1, 3, 32, 16, 24)] * 5
    assert network.eval()(images).shape == (1, 3, 32, 16, 24)


def test_supervised_maps_are_upsampled_trilinearly_the_deepest_last() -> None:
    network, made = small(), []
    for head in network.heads:
        head.register_forward_hook(lambda _, __, out: made.append(out))
    with torch.no_grad():
        outputs = network(torch.randn(1, 4, 16, 8, 12))
    assert [m.shape[2] for m in made] == [4, 4, 8, 16]  # dilated, joined, and the decoder's two
    for logits, coarse in zip(outputs[::-1], made, strict=True):
        torch.testing.assert_close(logits, interpolate(coarse, (16, 8, 12), mode="trilinear"))


def test_evaluation_is_the_first_output_of_training() -> None:
    network, images = small(), torch.randn(1, 4, 16, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.train()(images)[0], network.eval()(images))


def test_channel_attention_is_the_product_of_both_poolings() -> None:
    block, features = CBAM(3, reduction=16), torch.rand(2, 3, 2, 2, 2) + 1
    first, _, second = block.mlp
    for layer in (first, second, block.conv):
        nn.init.zeros_(layer.bias)
    nn.init.ones_(first.weight)  # the one hidden neuron sums
    with torch.no_grad():
        second.weight.copy_(torch.tensor([1.0, -0.5, 0.0]).reshape(3, 1, 1, 1, 1))
    nn.init.zeros_(block.conv.weight)  # the spatial attention is 1/2 everywhere
    mean, largest = features.mean((2, 3, 4)).sum(1), features.amax((2, 3, 4)).sum(1)
    products = torch.stack([mean * largest, 0.25 * mean * largest, torch.zeros(2)], dim=1)
    expected = features * products.sigmoid()[:, :, None, None, None] / 2
    with torch.no_grad():
        torch.testing.assert_close(block(features), expected)


def test_spatial_attention_sees_mean_and_maximum_of_the_attended_channels() -> None:
    torch.manual_seed(0)
    block, features = CBAM(4, reduction=2), torch.randn(1, 4, 5, 6, 7)
    nn.init.zeros_(block.mlp[2].weight)
    nn.init.zeros_(block.mlp[2].bias)  # the channel attention is 1/2 everywhere
    halved = features / 2
    pooled = torch.stack([halved.mean(1), halved.amax(1)], dim=1)
    with torch.no_grad():
        weight = conv3d(pooled, block.conv.weight, block.conv.bias, padding=3).sigmoid()
        assert weight.shape == (1, 1, 5, 6, 7)
        torch.testing.assert_close(block(features), halved * weight)


def test_every_stage_is_attended_and_what_is_pooled_is_not() -> None:
    network, pooled, attended = small(), [], []
    network.pool.register_forward_hook(lambda _, given, __: pooled.append(given[0]))
    for attention in network.attention:
        attention.register_forward_hook(lambda _, given, __: attended.append(given[0]))
    with torch.no_grad():
        network(torch.randn(1, 4, 8, 8, 8))
    assert len(attended) == 3
    assert len(pooled) == 2
    assert all(a is p for a, p in zip(attended, pooled))


def test_the_bottom_has_two_dilated_convolutions() -> None:
    dilations = {
        name: m.dilation
        for name, m in small().named_modules()
        if isinstance(m, nn.Conv3d) and m.dilation != (1,) * 3
    }
    assert dilations == {"dilated.0.conv": (2, 2, 2), "dilated.1.conv": (2, 2, 2)}


def test_attention_reaches_the_output() -> None:
    network, images = small().eval(), torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad():
        before: Tensor = network(images)
        for attention in network.attention:
            nn.init.constant_(attention.conv.bias, -100.0)  # nothing is worth looking at
        assert not torch.allclose(network(images), before)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_the_final_output_starts_at_the_prior() -> None:
    assert cbam_unet(channels=(8, 16), prior=0.2).heads[-1].bias.sigmoid().tolist() == pytest.approx(
        [0.2] * 3
    )


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm3d), ("instance", nn.InstanceNorm3d)])
def test_another_norm_takes_the_place_of_group_norm(norm: str, kind: type[nn.Module]) -> None:
    network = cbam_unet(channels=(4, 6), norm=norm)
    assert sum(isinstance(m, kind) for m in network.modules()) == 2 * 2 + 2 + 1 + 2
    assert not any(isinstance(m, nn.GroupNorm) for m in network.modules())


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4; set train.patch"
    ):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match="one voxel is left at the deepest level"):
        cbam_unet(channels=[4, 8], norm="instance")(torch.zeros(1, 4, 2, 2, 2))
    with pytest.raises(ValueError, match=r"model\.channels=\[8\]"):
        cbam_unet(channels=[8])
    with pytest.raises(ValueError, match=r"model\.channels: \[4, 8\] must be multiples of 8"):
        cbam_unet(channels=[4, 8])
    with pytest.raises(ValueError, match=r"model\.reduction=0: must be 1 or more"):
        cbam_unet(reduction=0)
    with pytest.raises(ValueError, match=r"model\.norm: unknown normalisation 'layer'"):
        cbam_unet(norm="layer")


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("cbam_unet")
    assert count(network) == 23_185_656
    assert rules == {"patch": [128, 128, 128], "multiple": 8, "normalise": "percentiles"}
    network, rules = configured("cbam_unet", "small")
    assert head_modules(network, rules["patch"]) == tuple(f"heads.{level}" for level in range(5))
    assert 200_000 < count(network) < 1_000_000
    assert rules["multiple"] == 8

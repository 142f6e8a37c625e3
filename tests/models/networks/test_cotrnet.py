"""COTRNet: ResNet-18's encoder, the printed sides, attention over all pixels, five outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.cotrnet import Attention, cotrnet
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, node, parameters_with_two_names
from tests.models.slice_checks import is_certain_in_eval_only, record_shapes

RESNET18 = 11_689_512  # torchvision's, with its last layer
LAST_LAYER = 512 * 1000 + 1000


def small(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return cotrnet(width=16, layers=(1, 1, 1, 1), heads=4, **settings)


def test_the_encoder_is_resnet_18() -> None:
    with torch.device("meta"):
        network = cotrnet()
    convolutions = count(network.stem) + sum(count(stage[0]) for stage in network.stages)
    assert convolutions == RESNET18 - LAST_LAYER + 7 * 7 * 64  # a fourth input channel


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def transformer(d: int) -> int:  # query, key, value, output; two layers of 4 d; two norms
        return 4 * (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + 4 * d

    def level(before: int, width: int, joined: int) -> int:
        return 4 * before * width + width + 9 * (joined + width) * width + 4 * width

    encoder = RESNET18 - LAST_LAYER + 7 * 7 * 64 + sum(transformer(d) for d in (64, 128, 256, 512))
    decoder = level(512, 256, 512) + level(256, 128, 256) + level(128, 64, 128)
    decoder += level(64, 64, 128) + level(64, 64, 64)
    heads = sum(3 * width + 3 for width in (256, 128, 64, 64, 64))
    with torch.device("meta"):
        assert count(cotrnet()) == encoder + decoder + heads == 18_602_319


def test_sides_are_those_of_the_paper() -> None:
    shapes: list = []
    with torch.device("meta"):
        network, images = cotrnet(), torch.zeros(2, 4, 224, 224)
        for module in (network.stem, *network.stages):
            record_shapes(module, shapes)
        outputs = [tuple(logits.shape) for logits in network(images)]
        assert network.eval()(images).shape == (2, 3, 224, 224)
    assert [out for _, out in shapes[:5]] == [
        (64, 112, 112),
        (64, 56, 56),
        (128, 28, 28),
        (256, 14, 14),
        (512, 7, 7),
    ]
    assert outputs == [(2, 3, side, side) for side in (224, 112, 56, 28, 14)]


def test_attention_joins_any_two_pixels() -> None:
    torch.manual_seed(0)
    layer, features = Attention(16, 4, 0.1).eval(), torch.randn(1, 16, 6, 6)
    changed = features.clone()
    changed[0, :, 5, 5] += torch.randn(16)
    with torch.no_grad():
        difference = (layer(changed) - layer(features)).abs().amax(1)
    assert float(difference.min()) > 1e-5
    features.requires_grad_()
    assert layer(features).shape == features.shape


def test_a_layer_of_attention_does_not_know_where_a_pixel_lies() -> None:
    torch.manual_seed(0)
    layer, features = Attention(16, 4, 0.1).eval(), torch.randn(1, 16, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(layer(features.flip(2)), layer(features).flip(2), atol=1e-5, rtol=1e-5)


def test_four_skips_are_joined_and_the_last_level_has_none() -> None:
    network = small()
    joined = [level.convolutions[0].in_channels // level.up.out_channels for level in network.decoder]
    assert joined == [2, 2, 2, 2, 1]


def test_gradients_reach_everything_and_steps_lower_the_loss() -> None:
    network = small(dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    region = torch.zeros(4, 1, 64, 64)
    region[..., 16:40, 24:48] = 1
    images = torch.randn(4, 4, 64, 64, generator=generator) + 2 * region
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=0.003), []
    for _ in range(8):
        optimizer.zero_grad()
        parts = [
            nn.functional.binary_cross_entropy_with_logits(
                logits, nn.functional.max_pool2d(region, 64 // logits.shape[-1]).expand_as(logits)
            )
            for logits in network(images)
        ]
        torch.stack(parts).mean().backward()
        optimizer.step()
        losses.append(float(torch.stack(parts).mean().detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


def test_dropout_acts_in_training_only() -> None:
    network = small()
    network.forward = lambda images, run=network.forward: (  # the full size alone
        run(images)[0] if network.training else run(images)
    )
    assert is_certain_in_eval_only(network)


def test_every_head_starts_at_the_prior() -> None:
    for head in small().heads:
        torch.testing.assert_close(head.bias.detach(), torch.full((3,), -2.1972246))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[64, 48\]: sides must be multiples of 32"):
        small()(torch.zeros(1, 4, 64, 48))
    for settings, said in (
        ({"width": 24}, r"model\.width=24"),
        ({"heads": 5}, r"model\.heads=5: must divide model\.width=64"),
        ({"layers": [1, 1, 1]}, r"model\.layers=\[1, 1, 1\]"),
    ):
        with pytest.raises(ValueError, match=said):
            cotrnet(**settings)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("cotrnet")
    assert count(network) == 18_602_319
    assert (rules["patch"], rules["resize"], rules["multiple"]) == ([240, 240], [224, 224], 32)
    assert node("cotrnet", "full")["width"] == 64
    network, rules = configured("cotrnet", "small")
    assert head_modules(network, rules["patch"]) == tuple(f"heads.{i}" for i in range(5))
    assert 200_000 < count(network) < 1_500_000

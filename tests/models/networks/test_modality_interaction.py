"""Modality interaction: co-attention by hand and in its order, a transformer over all sequences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from fedbrats.models.networks.modality_interaction import (
    CoAttention,
    Global,
    Hierarchy,
    modality_interaction,
)
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
    return modality_interaction(channels=(8, 16, 32), layers=1, heads=2, grid=(4, 4, 4))


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def convolution(before: int, width: int) -> int:  # with bias and the two arrays of its norm
        return 27 * before * width + 3 * width

    def attention(c: int) -> int:  # two connected layers, a 1x1x1 and a 3x3x3 convolution
        return (c * (c // 2) + c // 2) + ((c // 2) * c + c) + (c + 1) + (27 * c * c + c)

    def transformer(d: int) -> int:
        return 4 * (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + 4 * d

    widths = (32, 64, 128, 256, 320)
    down = sum(convolution(i, o) + convolution(o, o) for i, o in zip((4, *widths), widths))
    pairs = sum(4 * attention(width // 4) for width in widths)
    tokens = 6 * transformer(80) + (80 * 80 + 80) + 320 * 12 * 10 * 7  # positions: C/4 x 4N, section 2.3
    up = sum(27 * deeper * w + w for deeper, w in zip(widths[:0:-1], widths[-2::-1]))
    up += sum(convolution(2 * w + (0 if w == 256 else 320), w) for w in widths[:-1])
    with torch.device("meta"):
        assert count(modality_interaction()) == down + pairs + tokens + up + 3 * 32 + 3 == 20_578_007


def test_co_attention_is_equations_1_to_3() -> None:
    torch.manual_seed(0)
    layer, a, b = CoAttention(6), torch.randn(2, 6, 4, 3, 5), torch.randn(2, 6, 4, 3, 5)
    first, _, second, _ = layer.channel
    hidden = (b.mean((2, 3, 4)) @ first.weight.T + first.bias).clamp(min=0)
    channel = torch.sigmoid(hidden @ second.weight.T + second.bias)[:, :, None, None, None] * a
    weight = layer.spatial[0].weight.reshape(6)
    spatial = torch.sigmoid(torch.einsum("bcxyz,c->bxyz", b, weight) + layer.spatial[0].bias)
    both = channel + spatial.unsqueeze(1) * a
    expected = conv3d(both, layer.last.weight, layer.last.bias, padding=1).clamp(min=0)
    torch.testing.assert_close(layer(a, b), expected)


def changed_by(module: nn.Module, part: int, parts: int = 4) -> list[bool]:
    """Which parts of the output differ when one part of the input does."""
    features = torch.randn(1, 16, 4, 4, 4)
    other = features.clone()
    other.chunk(parts, dim=1)[part].add_(1.0)
    with torch.no_grad():
        return [
            not torch.allclose(a, b)
            for a, b in zip(module(features).chunk(parts, 1), module(other).chunk(parts, 1), strict=True)
        ]


def test_sequences_are_paired_as_printed() -> None:
    """T1 and T2 tell each other; the new T1 tells T1c and the new T2 tells FLAIR, and these tell nobody."""
    torch.manual_seed(0)
    layer = Hierarchy(16)
    assert changed_by(layer, 0) == [True, True, True, True]  # T1
    assert changed_by(layer, 1) == [False, True, False, False]  # T1c
    assert changed_by(layer, 2) == [True, True, True, True]  # T2
    assert changed_by(layer, 3) == [False, False, False, True]  # FLAIR


def test_t1c_is_told_by_the_new_t1_and_flair_by_the_new_t2() -> None:
    torch.manual_seed(0)
    layer, features = Hierarchy(16), torch.randn(1, 16, 4, 4, 4)
    seen: dict[str, tuple[Tensor, ...]] = {}
    for name, part in layer.named_children():
        part.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (*given, out)}))
    found = layer(features).chunk(4, 1)
    assert seen["t1c"][1] is seen["t1"][2]
    assert seen["flair"][1] is seen["t2"][2]
    torch.testing.assert_close(found[1], seen["t1c"][2])
    torch.testing.assert_close(found[3], seen["flair"][2])


def test_the_transformer_joins_all_sequences_and_voxels() -> None:
    torch.manual_seed(0)
    layer = Global(16, 1, 2, (4, 4, 4)).eval()
    for sequence in range(4):
        assert changed_by(layer, sequence) == [True] * 4
    features = torch.randn(1, 16, 4, 4, 4)
    changed = features.clone()
    changed[0, :, 3, 3, 3] += 1
    with torch.no_grad():
        assert float((layer(changed) - layer(features)).abs().amax(1).min()) > 1e-6


def test_a_token_is_a_voxel_of_one_sequence() -> None:
    """Without attention and inner layers, what is projected comes back to its place."""
    torch.manual_seed(0)
    layer, features = Global(16, 1, 2, (2, 3, 4)), torch.randn(2, 16, 2, 3, 4)
    nn.init.eye_(layer.project.weight)
    nn.init.zeros_(layer.project.bias)
    layer.layers = nn.ModuleList()
    expected = features + layer.positions.flatten(0, 1)
    torch.testing.assert_close(layer(features), expected)


def test_positions_are_resized_to_other_patches() -> None:
    network = small().eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 4, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
        assert network(torch.zeros(1, 4, 24, 8, 12)).shape == (1, 3, 24, 8, 12)


def test_every_level_of_the_decoder_sees_the_transformer() -> None:
    network = small()
    joined: list[int] = []
    for level in network.decoder:
        level.recover.register_forward_pre_hook(lambda _, given: joined.append(given[0].shape[1]))
    network(torch.zeros(1, 4, 8, 8, 8))
    assert joined == [16 + 16, 8 + 8 + 32]


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


@pytest.mark.slow
def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4"):
        small()(torch.zeros(1, 4, 8, 8, 6))
    for settings, said in (
        ({"in_channels": 3}, r"model\.in_channels=3: the network pairs four sequences"),
        ({"channels": [8, 12]}, r"model\.channels=\[8, 12\]"),
        ({"heads": 7}, r"model\.heads=7: must divide 80"),
        ({"layers": 0}, r"model\.layers=0"),
    ):
        with pytest.raises(ValueError, match=said):
            modality_interaction(**settings)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("modality_interaction")
        assert network.eval()(torch.zeros(1, 4, 192, 160, 112)).shape == (1, 3, 192, 160, 112)
    assert rules == {"patch": [192, 160, 112], "multiple": 16, "normalise": "zscore"}
    assert network.context.positions.shape == (4, 80, 12, 10, 7)
    network, rules = configured("modality_interaction", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 200_000 < count(network) < 1_500_000

"""EMSViT: the sizes that follow from the print, its equations by hand, who sees whom."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.emsvit import Block, GlobalAttention, MultiScale, Up, emsvit
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, losses_of_steps, node, parameters_with_two_names
from tests.models.slice_checks import record_shapes


def small(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    given = {"width": 24, "blocks": 1, "heads": 2, "patch": 4, "window": 2, "grid": 4, "decoder": 16}
    return emsvit(**given | settings)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    d, k = 384, 128

    def convolution(before: int, after: int, kernel: int) -> int:
        return kernel**3 * before * after + after

    block = 12 * d * d + 9 * d + 4 * d + 8 * 15**3  # projections and MLP, their biases, two norms, bias table
    split = sum(convolution(d // 3, d // 3, kernel) for kernel in (1, 3, 5))
    attention = 2 * convolution(d, d // 8, 1) + convolution(d, d, 1)
    norms = [k, 64, 32, 16]
    ups = [(128, 64), (128 + 64, 32), (128 + 64 + 32, 16)]  # Eq. 6: what came in stays beside what comes out
    decoder = convolution(d, k, 3) + sum(convolution(i, o, 2) + convolution(o, o, 3) for i, o in ups)
    total = (
        convolution(4, d, 8) + d * 16**3 + 2 * split + 6 * block + attention + 3 * convolution(2 * d, d, 1)
    )
    total += decoder + 2 * sum(norms) + 4 * 16 + 4
    with torch.device("meta"):
        assert count(emsvit()) == total == 20_869_940


def test_sides_are_those_of_the_paper() -> None:
    """Section 3.2: tokens at H/8 x W/8 x D/8, d reduced to K, then back to full resolution."""
    shapes: list = []
    with torch.device("meta"):
        network = emsvit()
        for module in (network.embedding, network.split, *network.encoder, network.attention, network.reduce):
            record_shapes(module, shapes)
        for up in network.ups:
            record_shapes(up, shapes)
        assert network(torch.zeros(2, 4, 128, 128, 64)).shape == (2, 4, 128, 128, 64)
    assert [out for _, out in shapes] == [
        *[(384, 16, 16, 8)] * 6,
        (128, 16, 16, 8),
        (192, 32, 32, 16),
        (224, 64, 64, 32),
        (16, 128, 128, 64),
    ]


def test_each_third_of_the_channels_sees_its_own_neighbourhood() -> None:
    torch.manual_seed(0)
    split, features = MultiScale(6), torch.randn(1, 6, 7, 7, 7)
    changed = features.clone()
    changed[0, :, 3, 3, 3] += 1
    with torch.no_grad():
        moved = (split(changed) - split(features)).abs() > 1e-6
    for third, reach in enumerate((0, 1, 2)):
        expected = torch.zeros(7, 7, 7, dtype=torch.bool)
        expected[(slice(3 - reach, 4 + reach),) * 3] = True
        assert all(torch.equal(moved[0, channel], expected) for channel in (2 * third, 2 * third + 1))


def test_a_transformer_block_is_equations_2_3_and_7() -> None:
    torch.manual_seed(0)
    block, features = Block(4, 1, 2), torch.randn(1, 4, 2, 2, 2)
    layer, z = block.layer, features.flatten(2)[0].T  # 8 tokens [8, 4]
    q, k, v = (layer.attn.qkv(layer.norm1(z))).chunk(3, dim=1)
    corners = [(x, y, w) for x in (0, 1) for y in (0, 1) for w in (0, 1)]
    bias = torch.tensor(  # one number for each of the 27 differences of position
        [
            [float(layer.attn.relative_position_bias_table[9 * (a - d + 1) + 3 * (b - e + 1) + c - f + 1])
             for d, e, f in corners]
            for a, b, c in corners
        ]
    )  # fmt: skip
    z = layer.attn.proj((q @ k.T / 2 + bias).softmax(1) @ v) + z  # sqrt(d) = 2
    z = layer.mlp.linear2(nn.functional.gelu(layer.mlp.linear1(layer.norm2(z)))) + z
    torch.testing.assert_close(block(features).flatten(2)[0].T, z)


def test_windows_do_not_see_each_other_and_global_attention_sees_all() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 8, 4, 4, 4)
    changed = features.clone()
    changed[0, :, 0, 0, 0] += torch.randn(8)  # the same on all channels would not pass layer norm
    with torch.no_grad():
        block, attention = Block(8, 2, 2), GlobalAttention(8)
        within = (block(changed) - block(features)).abs().amax(1)[0] > 1e-7
        anywhere = (attention(changed) - attention(features)).abs().amax(1)[0] > 1e-7
    assert within[:2, :2, :2].all()
    assert within.sum() == 8
    assert anywhere.all()


def test_global_attention_is_equations_4_and_5() -> None:
    torch.manual_seed(0)
    attention, features = GlobalAttention(8), torch.randn(1, 8, 1, 1, 3)
    m, n, w = (layer(features).flatten(2)[0] for layer in (attention.m, attention.n, attention.w))
    found = attention(features).flatten(2)[0]
    for j in range(3):
        shares = torch.stack([torch.exp(m[:, i] @ n[:, j]) for i in range(3)])
        shares = shares / shares.sum()
        expected = features.flatten(2)[0, :, j] + sum(shares[i] * w[:, i] for i in range(3))
        torch.testing.assert_close(found[:, j], expected)


def test_what_came_in_stays_beside_what_comes_out() -> None:
    """Equation 6."""
    torch.manual_seed(0)
    up, features = (
        Up(3, 2, joins=True),
        torch.ones(1, 3, 2, 2, 2) * torch.tensor([1.0, 2, 3])[:, None, None, None],
    )
    found = up(features)
    assert found.shape == (1, 5, 4, 4, 4)
    assert torch.equal(found[:, :2], up.f(features))
    assert found[0, 2:].amax((1, 2, 3)).tolist() == found[0, 2:].amin((1, 2, 3)).tolist() == [1, 2, 3]


def test_the_decoder_joins_the_encoders_blocks_last_first() -> None:
    network, seen = small(blocks=2), []
    for block in network.encoder:
        block.register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    for join in network.joins:
        join.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 24:]))
    with torch.no_grad():
        network(torch.randn(1, 4, 16, 16, 16))
    assert torch.equal(seen[2], seen[1])
    assert torch.equal(seen[3], seen[0])


def test_gradients_reach_everything_and_steps_lower_the_loss() -> None:
    network = small(out_channels=3, prior=None)
    losses = losses_of_steps(network, (16, 16, 16), steps=6)
    assert losses[-1] < 0.92 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[16, 12, 16\]: sides must be multiples of 8"):
        small()(torch.zeros(1, 4, 16, 12, 16))
    for settings, said in (
        ({"width": 40}, r"model\.width=40: must be a multiple of 3 and of model\.heads=8"),
        ({"heads": 5}, r"model\.heads=5"),
        ({"patch": 6}, r"model\.patch=6: must be a power of 2"),
        ({"decoder": 8}, r"model\.decoder=8: 1 or more, the decoder 16"),
        ({"grid": 0}, r"model\.grid=0"),
    ):
        with pytest.raises(ValueError, match=said):
            emsvit(**settings)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("emsvit")
    assert count(network) == 20_869_940
    assert (rules["patch"], rules["multiple"]) == ([128, 128, 128], network.multiple)
    assert rules["multiple"] == 64
    for size in ("full", "small"):
        model = node("emsvit", size)
        assert model["input"]["patch"] == [model["grid"] * model["patch"]] * 3
        assert model["input"]["multiple"] == model["patch"] * model["window"]
    network, rules = configured("emsvit", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 100_000 < count(network) < 1_000_000
    background = network.head.bias.detach().softmax(0)[0]
    torch.testing.assert_close(background, torch.tensor(0.9))

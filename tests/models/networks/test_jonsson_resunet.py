"""Jonsson's ResU-Net: printed counts, shapes of Tables 1 and 2, Keras's layer normalisation, spatial dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.models.networks.jonsson_resunet import ChannelNorm, ResidualBlock, ResUNet, jonsson_resunet
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, parameters_with_two_names
from tests.models.slice_checks import (
    is_certain_in_eval_only,
    largest_difference_in_channels_last,
    losses_of_steps,
    shapes_through,
)


def small(**arguments: float) -> ResUNet:
    torch.manual_seed(0)
    return jonsson_resunet(widths=(4, 8, 8, 16, 16), depths=(1, 2, 1, 1, 1), **arguments)  # type: ignore[arg-type]


def static(network: nn.Module) -> int:
    """Keras's non-trainable parameters: BatchNorm's means and variances."""
    return sum(b.numel() for b in network.buffers() if b.is_floating_point())


def test_has_exactly_the_printed_numbers_of_parameters() -> None:
    with torch.device("meta"):
        network = jonsson_resunet()
        assert count(network) == 6_854_609  # section 3.2.4
        assert static(network) == 9_824
        # The fifth width that Table 1 prints does not lead there.
        table_1 = jonsson_resunet(widths=(16, 32, 64, 128, 128))
        assert count(table_1) < 6_854_609
        assert static(table_1) < 9_824


def test_shapes_of_table_1() -> None:
    shapes = shapes_through(jonsson_resunet, lambda n: list(n.encoder), (64, 64))  # type: ignore
    assert shapes == [
        ((4, 64, 64), (16, 32, 32)),
        ((16, 32, 32), (32, 16, 16)),
        ((32, 16, 16), (64, 8, 8)),
        ((64, 8, 8), (128, 4, 4)),
        ((128, 4, 4), (256, 2, 2)),  # Table 1 prints 128, Table 2 starts from 256
    ]
    with torch.device("meta"):
        blocks = [
            sum(isinstance(m, ResidualBlock) for m in level.modules()) for level in jonsson_resunet().encoder
        ]
    assert blocks == [1, 2, 3, 4, 4]


def test_shapes_of_table_2() -> None:
    def norms(network: nn.Module) -> list[nn.Module]:
        return [*(level.norm for level in network.decoder), network.output]  # type: ignore

    shapes = shapes_through(jonsson_resunet, norms, (64, 64))
    assert [out for _, out in shapes] == [
        (256, 4, 4),
        (128, 8, 8),
        (64, 16, 16),
        (32, 32, 32),
        (16, 64, 64),
        (1, 64, 64),
    ]


def test_layer_normalisation_is_over_the_channels_of_each_pixel() -> None:
    layer, features = ChannelNorm(3), torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 8.0]]).view(1, 3, 1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 1.0]))
        layer.bias.copy_(torch.tensor([0.0, 0.0, 10.0]))
    # Left pixel: mean 3, variance (4 + 1 + 9) / 3. Right pixel: mean 6, variance (1 + 1 + 4) / 3 = 2.
    left, right = (14 / 3) ** 0.5, 2**0.5
    expected = torch.tensor(
        [[-2 / left, -1 / right], [-2 / left, -2 / right], [3 / left + 10, 2 / right + 10]]
    )
    torch.testing.assert_close(layer(features)[0, :, 0].detach(), expected, atol=1e-4, rtol=1e-4)


def test_first_block_of_a_level_has_a_convolution_on_its_shortcut() -> None:
    shortcuts = {
        name: isinstance(m.shortcut, nn.Identity)
        for name, m in small().named_modules()
        if isinstance(m, ResidualBlock)
    }
    identity = {name for name, plain in shortcuts.items() if plain}
    assert identity == {"encoder.1.2", "output.0"}  # the second level has two blocks
    assert len(shortcuts) == 6 + 5 + 1


def test_block_is_two_convolutions_and_its_input() -> None:
    block, features = ResidualBlock(3, 3, first=False).eval(), torch.randn(1, 3, 4, 4)
    nn.init.zeros_(block.path[-1].weight)
    torch.testing.assert_close(block(features), features.relu())


def test_dropout_is_spatial_and_has_two_rates() -> None:
    network = small(dropout_encoder=0.25, dropout_decoder=0.5)
    found = {name: m.p for name, m in network.named_modules() if isinstance(m, nn.Dropout2d)}
    assert {name: rate for name, rate in found.items() if name.startswith("decoder")} == {
        f"decoder.{level}.dropout": 0.5 for level in range(5)
    }
    assert [rate for name, rate in found.items() if name.startswith("encoder")] == [0.25] * 6  # one per block
    assert is_certain_in_eval_only(network)
    with torch.device("meta"):
        rates = {m.p for m in jonsson_resunet().modules() if isinstance(m, nn.Dropout2d)}
    assert rates == {0.1}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_logits_lie_on_the_grid_of_the_slice(channels: int) -> None:
    with torch.no_grad():
        assert small(out_channels=channels)(torch.zeros(2, 4, 32, 96)).shape == (2, channels, 32, 96)


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(dropout_encoder=0.0, dropout_decoder=0.0)) < 1e-9


def test_output_starts_at_the_prior() -> None:
    start = small(prior=0.04).output[-1].bias.sigmoid()
    torch.testing.assert_close(start.detach(), torch.tensor([0.04]))
    start = small(prior=0.04, out_channels=4).output[-1].bias.softmax(0)
    torch.testing.assert_close(start.detach()[0], torch.tensor(0.96))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[64, 48\]: sides must be multiples of 32; set train"):
        small()(torch.zeros(2, 4, 64, 48))
    with pytest.raises(ValueError, match=r"model\.widths=\[4, 8\], model\.depths=\[1\]: as many"):
        jonsson_resunet(widths=(4, 8), depths=(1,))


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("jonsson_resunet")
    assert count(network) == 6_854_609
    # 256x256 without the background, zoomed to 64x64 (section 3.1.1).
    assert (rules.pop("patch"), rules.pop("resize")) == ([192, 192], [64, 64])
    assert rules == {"multiple": 32, "planes": ["axial"], "normalise": "zscore"}
    network, rules = configured("jonsson_resunet", "small")
    assert head_modules(network, rules["patch"]) == ("output.1",)
    assert count(network) == 566_569
    assert network(torch.zeros(1, 4, *rules["patch"])).shape == (1, 1, 64, 64)

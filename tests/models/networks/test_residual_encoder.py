"""Residual encoder and convolutional decoder: every row of Table 1, ResNet-50, the image at every level."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedbrats.models.networks.residual_encoder import Bilinear, ResidualEncoder, residual_encoder
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, parameters_with_two_names
from tests.models.slice_checks import (
    Shape,
    is_certain_in_eval_only,
    largest_difference_in_channels_last,
    losses_of_steps,
    main_path,
    record_shapes,
    shapes_through,
)

# Table 1: name, side and channels in, side and channels out.
TABLE_1 = [
    ("Upsample-1", 8, 2048, 15, 2048),
    ("Concat-1", 15, 2048, 15, 2052),
    ("Conv-1a", 15, 2052, 15, 1024),
    ("Conv-1b", 15, 1024, 15, 1024),
    ("Upsample-2", 15, 1024, 30, 1024),
    ("Concat-2", 30, 1024, 30, 1028),
    ("Conv-2a", 30, 1028, 30, 512),
    ("Conv-2b", 30, 512, 30, 512),
    ("Upsample-3", 30, 512, 60, 512),
    ("Concat-3", 60, 512, 60, 516),
    ("Conv-3a", 60, 516, 60, 256),
    ("Conv-3b", 60, 256, 60, 256),
    ("Upsample-4", 60, 256, 120, 256),
    ("Concat-4", 120, 256, 120, 260),
    ("Conv-4a", 120, 260, 120, 128),
    ("Conv-4b", 120, 128, 120, 128),
    ("Upsample-5", 120, 128, 240, 128),
    ("Concat-5", 240, 128, 240, 132),
    ("Conv-5a", 240, 132, 240, 64),
    ("Conv-5b", 240, 64, 240, 64),
    ("SotmaxwithLoss", 240, 64, 240, 4),
]


def small(**arguments: float) -> ResidualEncoder:
    torch.manual_seed(0)
    return residual_encoder(width=4, layers=(1, 1, 1, 1), **arguments)  # type: ignore[arg-type]


def test_every_row_of_table_1() -> None:
    def layers(network: nn.Module) -> list[nn.Module]:
        return [m for level in network.decoder for m in (level.upsample, level.conv_a, level.conv_b)]  # type: ignore

    shapes = shapes_through(residual_encoder, layers, (240, 240))
    found: list[tuple[Shape, Shape]] = []
    for up, conv_a, conv_b in zip(shapes[::3], shapes[1::3], shapes[2::3]):
        found += [up, (up[1], conv_a[0]), conv_a, conv_b]  # a concatenation joins what its neighbours show
    printed = [((cin, side, side), (cout, out, out)) for _, side, cin, out, cout in TABLE_1]
    # The last two rows are one convolution: a softmax cannot turn 64 channels into 4.
    assert found == [*printed[:-2], (printed[-2][0], printed[-1][1])]


def test_encoder_is_resnet_50() -> None:
    with torch.device("meta"):
        encoder = residual_encoder().encoder
        assert encoder(torch.zeros(2, 4, 240, 240)).shape == (2, 2048, 8, 8)
    # torchvision's resnet50 has 25,557,032, of which 2,049,000 in its classifier; here with a fourth input channel.
    assert count(encoder) == 25_557_032 - 2_049_000 + 64 * 49


def test_has_49_and_10_convolutions() -> None:
    with torch.device("meta"):
        names = main_path(residual_encoder(), "downsample", (64, 64))
    assert sum(name.startswith("encoder.") for name in names) == 49
    assert sum(name.startswith("decoder.") for name in names) == 10
    assert len(names) == 59  # the conclusion's number


def test_number_of_parameters() -> None:
    # The paper prints none. Decoder by hand: two 3x3 convolutions per level and their norms, class scores with bias.
    decoder, inputs = 0, 2048
    for width in (1024, 512, 256, 128, 64):
        last = 64 * 4 * 9 + 4 if width == 64 else 9 * width * width + 2 * width
        decoder += 9 * (inputs + 4) * width + 2 * width + last
        inputs = width
    with torch.device("meta"):
        assert count(residual_encoder()) == 23_511_168 + decoder == 61_267_716


@pytest.mark.parametrize("sides", [(33, 64), (64, 50), (97, 41)])
def test_any_sides_above_32(sides: tuple[int, int]) -> None:
    with torch.no_grad():
        assert small()(torch.zeros(2, 4, *sides)).shape == (2, 4, *sides)
        assert small(out_channels=1).eval()(torch.zeros(1, 4, *sides)).shape == (1, 1, *sides)


def test_upsampling_is_bilinear_and_cannot_learn() -> None:
    layer = Bilinear()
    assert not list(layer.parameters())
    assert not list(layer.buffers())
    step = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    torch.testing.assert_close(layer(step, (2, 4))[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_decoder_sees_the_image_at_every_level() -> None:
    network, images, seen = small().eval(), torch.randn(1, 4, 72, 72), []

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0][:, -4:])

    for level in network.decoder:
        level.conv_a.register_forward_pre_hook(hook)
    with torch.no_grad():
        network(images)
    assert [image.shape[-1] for image in seen] == [5, 9, 18, 36, 72]
    assert torch.equal(seen[-1], images)
    for image in seen[:-1]:
        torch.testing.assert_close(image, interpolate(images, image.shape[2:], mode="bilinear"))


def test_scores_have_neither_norm_nor_activation() -> None:
    *levels, last = small().decoder
    assert isinstance(last.conv_b, nn.Conv2d)
    assert last.conv_b.bias is not None
    for conv in [*(c for level in levels for c in (level.conv_a, level.conv_b)), last.conv_a]:
        assert [type(m) for m in conv] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_evaluation_repeats_itself_bit_for_bit() -> None:
    network, images = small().eval(), torch.randn(2, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
    assert not is_certain_in_eval_only(small())  # it has no dropout


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small()) < 1e-9


def test_strided_1x1_convolutions_have_16_channels_or_more() -> None:
    # Below, their backward pass corrupts memory on CPUs with channels last; see the comment in the network.
    strided = [
        m
        for m in small().modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1)
    ]
    assert len(strided) == 3
    assert min(m.in_channels for m in strided) == 16


def test_background_starts_at_one_minus_the_prior() -> None:
    start = small(prior=0.04).decoder[-1].conv_b.bias.softmax(0)
    torch.testing.assert_close(start.detach(), torch.tensor([0.96, 0.04 / 3, 0.04 / 3, 0.04 / 3]))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[64, 32\]: sides must be larger than 32"):
        small()(torch.zeros(2, 4, 64, 32))
    with pytest.raises(ValueError, match=r"model\.width=3: must be 4 or more"):
        residual_encoder(width=3)
    with pytest.raises(ValueError, match=r"model\.layers=\[3, 4\]: four numbers"):
        residual_encoder(layers=(3, 4))


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("residual_encoder")
    assert count(network) == 61_267_716
    assert rules == {"patch": [240, 240], "multiple": 1, "planes": ["axial"], "normalise": "histogram"}
    network, rules = configured("residual_encoder", "small")
    assert head_modules(network, rules["patch"]) == ("decoder.4.conv_b",)
    assert count(network) == 727_652
    shapes: list[tuple[Shape, Shape]] = []
    record_shapes(network, shapes)
    network(torch.zeros(1, 4, *rules["patch"]))
    assert shapes == [((4, 64, 64), (4, 64, 64))]

"""SPiN: the printed counts, sides and rearrangements, and which slices tell of a slice."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, pixel_shuffle

from fedbrats.models.networks.spin import Downsampler, depth_to_space, space_to_depth, spin
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, losses_of_steps, node, parameters_with_two_names
from tests.models.slice_checks import record_shapes


def small(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return spin(channels=(16, 16, 32), blocks=1, decoder=(32, 16, 16, 8), **settings)


def weights(*modules: nn.Module) -> int:
    """Numbers of convolutions, without norms."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.ndim > 1)


def test_counts_are_those_of_the_paper() -> None:
    """Section 3.1: 16K and 11K; section 4: 27K together, about 5.3M in all. One T1, one lesion, five slices."""
    with torch.device("meta"):
        network = spin(in_channels=1, out_channels=1)
    guidance = weights(network.features, network.embedding, network.guide, network.guide_subpixels)
    assert guidance == 720 + 2304 + 80 + 2 * 2304 + 32 + 576 + 2304 + 576 == 11_200
    assert weights(network.downsampler) == 100 * 16 * 9 + 16 * 16 * 9 + 16 * 4 == 16_768
    unused = 64**2 + 128**2 + 2 * 196**2  # projections that the release has in blocks whose shape stays
    assert count(network) == 5_160_201
    assert round((count(network) + unused) / 1e6, 1) == 5.3


def test_sides_are_those_of_the_paper() -> None:
    shapes: list = []
    with torch.device("meta"):
        network = spin(out_channels=1)
        for module in (network.features, network.embedding, network.guide, network.guide_subpixels):
            record_shapes(module, shapes)
        for module in (network.output, network.downsampler.weights):
            record_shapes(module, shapes)
        assert network(torch.zeros(2, 4, 197, 233, 3)).shape == (2, 1, 197, 233, 3)
    assert sorted(shapes) == sorted(
        [
            ((4, 197, 233, 3), (16, 197, 233, 3)),
            ((4, 394, 466, 3), (8, 394, 466, 3)),
            ((32, 197, 233, 3), (8, 197, 233, 3)),
            ((8, 394, 466, 3), (8, 394, 466, 3)),
            ((24, 394, 466, 3), (1, 394, 466, 3)),  # g(x) to f0
            ((100, 197, 233, 3), (4, 197, 233, 3)),  # h of 25 channels at twice the sides
        ]
    )


def test_depth_to_space_is_a_pixel_shuffle_of_each_slice_and_can_be_undone() -> None:
    features = torch.randn(2, 12, 3, 4, 2)
    found = depth_to_space(features)
    for index in range(2):
        assert torch.equal(found[..., index], pixel_shuffle(features[..., index], 2))
    assert torch.equal(space_to_depth(found), features)


def test_two_slices_on_either_side_tell_of_a_slice_and_no_other_does() -> None:
    network, images = small().eval(), torch.randn(1, 4, 16, 16, 9)
    with torch.no_grad():
        before = network(images)
        for changed in range(9):
            other = images.clone()
            other[..., changed] += torch.randn(1, 4, 16, 16)
            moved = (network(other) != before).flatten(0, 3).any(0)
            assert moved.tolist() == [abs(changed - index) <= 2 for index in range(9)]


def test_the_first_convolution_is_one_of_five_slices_as_channels() -> None:
    """Beyond the volume, the mean of z-scores: 0."""
    layer, images = small().stem[0], torch.randn(1, 4, 12, 12, 3)
    padded = nn.functional.pad(images, (2, 2))
    for index in range(3):
        window = padded[..., index : index + 5].movedim(-1, 2).flatten(1, 2)  # [1, 4 * 5, 12, 12]
        kernel = layer.weight.movedim(-1, 2).flatten(1, 2)
        expected = conv2d(window, kernel, stride=2, padding=3)
        torch.testing.assert_close(layer(images)[..., index], expected, atol=1e-5, rtol=1e-5)


def test_the_downsampler_weighs_the_four_predictions_of_a_pixel() -> None:
    torch.manual_seed(0)
    downsampler = Downsampler(3 + 2)
    latent, predicted = torch.randn(1, 3, 4, 6, 2), torch.randn(1, 2, 4, 6, 2)
    with torch.no_grad():
        found = downsampler(latent, predicted)
        shares = downsampler.weights(space_to_depth(torch.cat([latent, predicted], 1))).softmax(1)
        for region in range(2):
            square = predicted[0, region, 2:4, 4:6, 1]
            expected = (shares[0, :, 1, 2, 1].reshape(2, 2) * square).sum()
            torch.testing.assert_close(found[0, region, 1, 2, 1], expected)
        for parameter in downsampler.weights[-1].parameters():
            parameter.zero_()  # equal weights: the mean
        mean = nn.functional.avg_pool3d(predicted, (2, 2, 1))
        torch.testing.assert_close(downsampler(latent, predicted), mean)


def test_gradients_reach_everything_and_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (32, 32, 8), steps=6)
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


def test_every_region_starts_at_the_prior() -> None:
    network = small()
    torch.testing.assert_close(network.output.bias.detach(), torch.full((3,), -2.1972246))


def test_bad_settings_are_named() -> None:
    for settings, said in (
        ({"slices": 4}, r"model\.slices=4: must be odd"),
        ({"channels": [8, 16]}, r"model\.channels=\[8, 16\]"),
        ({"decoder": [16, 8]}, r"model\.decoder=\[16, 8\], model\.blocks=2: 6 widths"),
        ({"blocks": 0}, r"model\.blocks=0"),
    ):
        with pytest.raises(ValueError, match=said):
            spin(**settings)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("spin")
        assert count(network) == 5_187_707
    assert rules["patch"] == [240, 240, 8]
    assert node("spin", "full")["slices"] == 5
    network, rules = configured("spin", "small")
    assert head_modules(network, rules["patch"]) == ("downsampler.weights.4",)  # after `output`
    assert 30_000 < count(network) < 300_000

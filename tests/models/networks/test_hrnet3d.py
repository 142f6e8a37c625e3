"""HRNet in 3D: the published sizes by the same count in 2D, four branches, and what they exchange."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, relu

from fedbrats.models.networks.hrnet3d import Exchange, HRNet3D, _convolution, hrnet3d
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def by_hand(width: int, stem: int, dimensions: int, before: int, outputs: int) -> int:
    """HRNetV2's layers: every convolution has a norm of two numbers per channel and no bias, but the last two."""

    def conv(i: int, o: int, kernel: int = 3) -> int:
        return kernel**dimensions * i * o + 2 * o

    wide = 4 * stem
    found = conv(before, stem) + conv(stem, stem)
    found += conv(stem, stem, 1) + conv(stem, stem) + 2 * conv(stem, wide, 1)  # the first has a way round
    found += 3 * (conv(wide, stem, 1) + conv(stem, stem) + conv(stem, wide, 1))
    widths = [width, 2 * width, 4 * width, 8 * width]
    found += (
        conv(wide, widths[0])
        + conv(wide, widths[1])
        + conv(widths[1], widths[2])
        + conv(widths[2], widths[3])
    )
    for branches, modules in ((2, 1), (3, 4), (4, 3)):
        ws = widths[:branches]
        blocks = sum(4 * 2 * conv(w, w) for w in ws)
        up = sum(conv(ws[j], ws[i], 1) for i in range(branches) for j in range(i + 1, branches))
        down = sum(
            (i - j - 1) * conv(ws[j], ws[j]) + conv(ws[j], ws[i]) for i in range(branches) for j in range(i)
        )
        found += modules * (blocks + up + down)
    total = sum(widths)
    return found + total * total + 3 * total + total * outputs + outputs


def small() -> HRNet3D:
    torch.manual_seed(0)
    return hrnet3d(width=4, stem=4, modules=(1, 1), blocks=1)


def test_size_is_that_of_the_published_network_in_3d() -> None:
    # HRNetV2-W48 on the 19 classes of Cityscapes (Wang et al., TPAMI 2021): 65.9 million.
    assert round(by_hand(48, 64, 2, 3, 19) / 1e6, 1) == 65.9
    with torch.device("meta"):
        assert count(hrnet3d()) == by_hand(16, 32, 3, 4, 3) == 21_821_219


def test_of_halved_published_widths_the_default_is_the_nearest_to_swin_unet() -> None:
    swin_unet = 27.2e6
    widths = (18, 30, 32, 40, 44, 48, 64)
    nearest = min(widths, key=lambda w: abs(by_hand(w // 2, 32, 3, 4, 3) - swin_unet))
    assert nearest == 32


def test_the_branches_keep_their_sides() -> None:
    made: list[list[tuple[int, ...]]] = []
    with torch.device("meta"):
        network = hrnet3d().eval()
        for stage in network.stages:
            stage.register_forward_hook(lambda _, __, out: made.append([tuple(x.shape[1:3]) for x in out]))
        assert network(torch.zeros(1, 4, 128, 128, 128)).shape == (1, 3, 128, 128, 128)
        assert network(torch.zeros(1, 4, 64, 96, 32)).shape == (1, 3, 64, 96, 32)
    branches = [(16, 32), (32, 16), (64, 8), (128, 4)]
    assert made[:3] == [branches[:2], branches[:3], branches]


def test_every_branch_gets_the_sum_of_all() -> None:
    torch.manual_seed(0)
    module = Exchange([2, 4, 8], 1, partial(_convolution, norm="batch")).eval()
    features = [torch.randn(1, w, s, s, s) for w, s in ((2, 8), (4, 4), (8, 2))]
    with torch.no_grad():
        found = module(list(features))
        a, b, c = (branch(one) for branch, one in zip(module.branches, features))
        ways = module.ways
        expected = [
            a + _up(ways[0][1](b), 8) + _up(ways[0][2](c), 8),
            ways[1][0](a) + b + _up(ways[1][2](c), 4),
            ways[2][0](a) + ways[2][1](b) + c,
        ]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, relu(other))
    strides = [m.stride[0] for m in ways[2][0].modules() if isinstance(m, nn.Conv3d)]
    assert strides == [2, 2]
    assert not any(isinstance(m, nn.ReLU) for m in ways[0][1].modules())


def _up(features: torch.Tensor, side: int) -> torch.Tensor:
    return interpolate(features, size=(side,) * 3, mode="trilinear", align_corners=False)


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (16, 32, 16)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (32, 32, 32), steps=8)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


@pytest.mark.parametrize(("norm", "kind"), [("instance", nn.InstanceNorm3d), ("group", nn.GroupNorm)])
def test_another_norm_takes_the_place_of_batch_norm(norm: str, kind: type[nn.Module]) -> None:
    network = hrnet3d(width=8, stem=8, modules=(1,), blocks=1, norm=norm)
    assert any(isinstance(m, kind) for m in network.modules())
    assert not any(isinstance(m, nn.BatchNorm3d) for m in network.modules())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[32, 32, 24\]: sides must be multiples of 16"):
        small()(torch.zeros(1, 4, 32, 32, 24))
    for settings, said in (
        ({"modules": []}, r"model\.modules=\[\]"),
        ({"blocks": 0}, r"model\.blocks=0"),
        ({"width": 4, "norm": "group"}, r"model\.width=4.*multiples of 8"),
        ({"norm": "layer"}, r"model\.norm: unknown normalisation 'layer'"),
    ):
        with pytest.raises(ValueError, match=said):
            hrnet3d(**settings)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("hrnet3d")
    assert count(network) == 21_821_219
    assert rules == {"patch": [128, 128, 128], "multiple": 32, "normalise": "zscore"}
    network, rules = configured("hrnet3d", "small")
    assert head_modules(network, rules["patch"]) == ("head",)
    assert 50_000 < count(network) < 400_000

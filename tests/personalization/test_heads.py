"""Output heads: those that a reader of each network would name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbrats.config.targets import ConfigError
from fedbrats.models.build import Resized, output_channels
from fedbrats.personalization.heads import head_modules
from tests.personalization.networks import PATCH, SMALL, configured, dynunet, own_patch


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_configured_network(name: str) -> None:
    """A head makes the output channels; which modules are heads stands in the tests of each network."""
    network, sides = configured(name), own_patch(name)
    channels = output_channels(network.eval(), sides)
    heads = [network.get_submodule(head) for head in head_modules(network, sides)]
    made = [next(head.parameters(recurse=False)).shape[0] for head in heads]
    others = {
        "cascade_unet": [1] * channels,  # a U-Net for each region
        "spin": [4],  # weights of the four predictions of a pixel, which are its output
        "vae_unet": [channels, 4, 32],  # and the reconstruction and what it is drawn by, outputs in training
    }
    assert set(made) == {channels} or sorted(made) == others[name]


class Wired(nn.Module):
    """Layers of one channel, and a function of them and the images that wires them."""

    def __init__(self, wire: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv3d(i, 1, 1) for i in (4, 1, 1, 1))
        self.norm, self.act, self.wire = nn.BatchNorm3d(1), nn.ReLU(inplace=True), wire

    def forward(self, x: Tensor) -> Any:
        return self.wire(self, x)


def identity_shortcut(n: Any, x: Tensor) -> Tensor:
    before = n.a(x)
    return n.b(before) + before


def weighted_shortcut(n: Any, x: Tensor) -> Tensor:
    before = n.a(x)
    return n.c(n.b(before)) + n.d(before)


@pytest.mark.parametrize(
    ("wire", "heads"),
    [
        (lambda n, x: n.b(n.a(x)), ("b",)),
        (lambda n, x: n.act(n.b(n.a(x))).sigmoid(), ("b",)),  # in place, and without parameters of its own
        (lambda n, x: n.norm(n.b(n.a(x))), ("norm",)),
        (identity_shortcut, ("b",)),  # what feeds a head is none
        (weighted_shortcut, ("c", "d")),  # each is the last on its way
        (lambda n, x: torch.cat([n.c(n.a(x)), n.d(x[:, :1])], 1), ("c", "d")),
        (lambda n, x: [n.b(n.a(x)), n.c(n.a(x))], ("b", "c")),  # two outputs
        (lambda n, x: [n.b(n.a(x)), n.a(x)], ("a", "b")),  # one feeds the other, but each makes an output
        (lambda n, x: (n.c(n.b(n.a(x))), [n.d(n.a(x))]), ("c", "d")),
        (lambda n, x: n.b(n.a(x)).detach() + n.c(n.a(x)), ("c",)),
        (lambda n, x: n.a(x)[:, :, ::2], ("a",)),
    ],
)
def test_small_networks_wired_by_hand(wire: Callable[[Any, Tensor], Any], heads: tuple[str, ...]) -> None:
    assert head_modules(Wired(wire), PATCH) == heads


def test_the_inner_module_is_the_head_and_a_wrapper_only_adds_its_name() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))
            self.inner = nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    assert head_modules(Outer(), [16, 16]) == ("inner",)
    assert head_modules(Resized(Outer(), [32, 32]), [16, 20]) == ("network.inner",)


def test_a_module_that_multiplies_by_its_own_parameter_is_found() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale = nn.Conv3d(4, 3, 1), nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.scale.exp()

    assert head_modules(nn.Sequential(Scaled()), PATCH) == ("0",)


def test_deep_supervision_of_monai() -> None:
    """Its outputs are stacked into one tensor; the second head lies inside the blocks that are registered twice."""
    assert head_modules(dynunet(deep=True), PATCH) == (
        "output_block.conv.conv",
        "deep_supervision_heads.0.conv.conv",
    )
    assert head_modules(dynunet(), PATCH) == ("output_block.conv.conv",)
    trained = dynunet(deep=True).train()
    trained(torch.randn(2, 4, 8, 8, 8))  # it keeps its outputs, with their graphs, which nobody can copy
    with torch.no_grad():
        assert head_modules(trained, PATCH) == head_modules(dynunet(deep=True), PATCH)


def test_the_network_is_not_touched() -> None:
    network = nn.Sequential(nn.Conv3d(4, 2, 1), nn.BatchNorm3d(2), nn.Dropout(0.5), nn.Conv3d(2, 3, 1)).eval()
    network[0].weight.requires_grad_(False)
    network[3].requires_grad_(False)  # a frozen head is a head
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert head_modules(network, PATCH) == ("3",)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module.training or module._forward_hooks for module in network.modules())
    assert [p.requires_grad for p in network[0].parameters()] == [False, True]
    assert next(network.parameters()).device.type == "cpu"


def test_a_network_that_wants_other_sides_or_has_no_head_is_an_error_that_says_what_to_do() -> None:
    class Picky(nn.Conv3d):
        least = 100

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] < self.least:
                raise ValueError(f"sides must be {self.least} or more")
            return super().forward(x)

    network = nn.Sequential(Picky(4, 3, 1)).eval()
    assert head_modules(network, [100, 8, 8]) == ("0",)
    with pytest.raises(ConfigError, match=r"on \[16, 16, 16\] .*sides must be 100 .*personalization\.layers"):
        head_modules(network, PATCH)
    assert not network[0].training
    assert not network[0]._forward_hooks
    with pytest.raises(ConfigError, match=r"personalization\.layers"):
        head_modules(Wired(lambda n, x: n.b(n.a(x)).detach()), PATCH)

"""3D U-Net of reciprocal adversarial learning: the layers that are printed, the number of parameters, its training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fedbrats.config.targets import ConfigError
from fedbrats.federation import wire
from fedbrats.models.networks.vat_unet import VatUNet, vat_unet
from tests.federation.toy_personal import arrays, runtime
from tests.federation.toy_sites import Process, weights
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)
from tests.models.test_build import config_of
from tests.tiny import one_round


def small() -> VatUNet:
    torch.manual_seed(0)
    return vat_unet(width=16)


def test_number_of_parameters() -> None:
    """The paper prints none. By hand: 3x3x3 kernels without bias, two numbers per channel of each norm."""

    def of(before: int, width: int) -> int:
        return 27 * before * width + 2 * width

    widths = (48, 96, 192, 384)
    expected = sum(of(i, o // 2) + of(o // 2, o) for i, o in zip((4, *widths), widths))
    expected += 2 * of(384, 384) + of(768, 192)  # the bottleneck, and what joins it
    expected += sum(of(2 * skip, skip) + of(skip, skip // 2) for skip in (192, 96, 48))
    expected += 24 * 3 + 3
    with torch.device("meta"):
        assert count(vat_unet()) == expected == 19_167_819


def test_layers_are_those_that_are_printed() -> None:
    with torch.device("meta"):
        network = vat_unet()
    down = [*network.encoder, network.bottleneck]
    assert len(down) == 5  # "five layers including bottleneck"
    for layer in down:
        kinds = [type(m) for m in layer.modules() if not list(m.children())]
        assert kinds == [nn.Conv3d, nn.GroupNorm, nn.ReLU] * 2
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    assert {m.kernel_size for m in convolutions[:-1]} == {(3, 3, 3)}
    assert [m.out_channels for m in convolutions[:2]] == [24, 48]  # "first encoder ... 48"
    assert {m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)} == {8}
    assert (network.head.kernel_size, network.head.out_channels) == ((1, 1, 1), 3)


def test_shapes_on_the_way() -> None:
    with torch.device("meta"):
        network, images = vat_unet(), torch.zeros(2, 4, 128, 128, 128)
    seen: list[tuple[int, ...]] = []
    for part in (*network.encoder, network.bottleneck, network.join, *network.decoder):
        part.register_forward_hook(lambda module, given, output: seen.append(tuple(output.shape[1:3])))
    assert network(images).shape == (2, 3, 128, 128, 128)
    assert seen == [
        *((48, 128), (96, 64), (192, 32), (384, 16)),
        *((384, 16), (192, 16)),
        *((96, 32), (48, 64), (24, 128)),
    ]


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (16, 8, 8)) < 1e-9


@pytest.mark.slow
def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16), steps=8)
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[16, 12, 8\]: sides must be multiples of 8"):
        small()(torch.zeros(1, 4, 16, 12, 8))
    with pytest.raises(ValueError, match=r"model\.width=24: .* a multiple of 16 for model\.norm=group"):
        vat_unet(width=24)
    with pytest.raises(ValueError, match=r"model\.width=7: must be even"):
        vat_unet(width=7, norm="instance")


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("vat_unet")
    assert count(network) == 19_167_819
    assert rules == {"patch": [128, 128, 128], "multiple": 8, "normalise": "minmax"}
    network, rules = configured("vat_unet", "small")
    with torch.no_grad():
        logits = network(torch.zeros(1, 4, *rules["patch"]))
    assert logits.shape == (1, 3, *rules["patch"])
    torch.testing.assert_close(logits.sigmoid().mean(), torch.tensor(0.1), atol=0.1, rtol=0)


def test_patient_level_privacy_asks_to_leave_the_term_out() -> None:
    private = ("model=vat_unet", "model.size=small", "privacy=dp_sgd", "privacy.target_epsilon=8")
    with pytest.raises(ConfigError, match=r"privacy=dp_sgd exclude each other.*set train\.vat\.weight=0"):
        config_of(*private)


def _vat_site(folder: Path, weight: float) -> Process:
    found = runtime(folder, {})
    found.warm.config.train.vat.weight = weight
    found.warm.config.train.vat.target = "truth"
    return found


def test_a_round_at_a_site_has_the_term_and_comes_out_the_same_again(tmp_path: Path) -> None:
    """On the toy network, which has a BatchNorm: its statistics are those of training without the term's passes."""
    made = {}
    for name, weight in (("a", 0.2), ("b", 0.2), ("without", 0.0)):
        found = _vat_site(tmp_path / name, weight)
        told = found.train("A", wire.to_record(arrays()), "federated", 1)
        made[name] = (told["loss"], weights(found))
    assert made["a"][0] == made["b"][0]
    assert torch.equal(made["a"][1], made["b"][1])
    assert not torch.equal(made["a"][1], made["without"][1])


@pytest.mark.slow
def test_it_trains_in_a_federation(cache: Path, tmp_path: Path) -> None:
    one_round(cache, tmp_path / "run", "model=vat_unet", "model.size=small", "train.patch=[16,16,16]")

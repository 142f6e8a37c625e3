"""Cascaded U-Nets: who sees what, who learns from what, and the random slopes of RReLU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbrats.data.regions import REGIONS
from fedbrats.models.facts import training_bytes
from fedbrats.models.networks.cascade_unet import CascadeUNet, RReLU, UNet, cascade_unet
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)


def small(*trains: str) -> CascadeUNet:
    torch.manual_seed(0)
    return cascade_unet(channels=(8, 16, 24), trains=trains or REGIONS)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def block(
        before: int, width: int
    ) -> int:  # two convolutions with bias and the norms' two numbers per channel
        return 27 * (before + width) * width + 6 * width

    def whole(inputs: int) -> int:
        widths = (16, 32, 64, 128, 256)
        down = sum(block(i, o) for i, o in zip((inputs, *widths), widths))
        return down + sum(block(w + 2 * w, w) for w in widths[:-1]) + 16 + 1

    with torch.device("meta"):
        network = cascade_unet()
        found = [count(one) for one in network.networks.values()]
    assert found == [whole(4), whole(5), whole(6)]
    assert count(network) == sum(found) == 17_666_115


def test_one_unet_with_the_printed_input_fits_the_printed_gpu() -> None:
    class Third(nn.Module):
        """The U-Net of ET by itself."""

        def __init__(self, *widths: int) -> None:
            super().__init__()
            self.network = UNet(6, widths)

        def forward(self, images: Tensor) -> Tensor:
            return self.network(torch.cat([images, images[:, :2]], dim=1))

    with torch.device("meta"):
        chosen, wider = Third(16, 32, 64, 128, 256), Third(32, 64, 128, 256)
        needed = [training_bytes(network, [160, 160, 160], 1) for network in (chosen, wider)]
    assert needed == [pytest.approx(5.8e9, rel=0.01), pytest.approx(11.3e9, rel=0.01)]
    assert needed[0] < 11e9 < needed[1]  # GTX 1080Ti


def test_each_unet_sees_the_images_and_what_those_before_it_have_found() -> None:
    network, seen = small().eval(), []
    for one in network.networks.values():
        one.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    images = torch.randn(1, 4, 8, 8, 12)
    with torch.no_grad():
        for one in network.networks.values():  # so that about half of the voxels are found
            nn.init.zeros_(one.head.bias)
        logits = network(images)
    assert [given.shape[1] for given, _ in seen] == [4, 5, 6]
    assert all(torch.equal(given[:, :4], images) for given, _ in seen)
    masks = (torch.cat([out for _, out in seen], dim=1).sigmoid() > 0.5).float()
    assert 0 < masks.mean() < 1
    assert torch.equal(seen[1][0][:, 4:], masks[:, :1])
    assert torch.equal(seen[2][0][:, 4:], masks[:, :2])
    assert torch.equal(logits, torch.cat([out for _, out in seen], dim=1))


@pytest.mark.parametrize("index", range(3))
def test_each_unet_learns_from_its_own_region_alone(index: int) -> None:
    network = small()
    network(torch.randn(1, 4, 8, 8, 8))[:, index].sum().backward()
    learns = {
        region: any(p.grad is not None and p.grad.any() for p in one.parameters())
        for region, one in network.networks.items()
    }
    assert learns == {region: region == REGIONS[index] for region in REGIONS}


def test_what_is_frozen_does_not_learn_and_does_not_draw() -> None:
    network = small("TC").train()
    outputs = network(torch.randn(2, 4, 8, 8, 8))
    outputs.sum().backward()
    assert {name.split(".")[1] for name, p in network.named_parameters() if p.grad is not None} == {"TC"}
    assert [one.training for one in network.networks.values()] == [False, True, False]
    images = torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad():
        first, second = network(images), network(images)
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first[:, 1], second[:, 1])
    assert set(small().state_dict()) == set(network.state_dict())  # so a run can start from the one before
    assert not any(one.training for one in network.eval().networks.values())


def test_slopes_are_drawn_in_training_from_the_whole_range_and_are_their_mean_outside() -> None:
    torch.manual_seed(0)
    layer, features = RReLU(), torch.randn(2, 3, 20, 20, 20)
    negative = features < 0
    found = layer(features)
    assert torch.equal(found[~negative], features[~negative])
    slopes = found[negative] / features[negative]
    assert 1 / 8 - 1e-5 < slopes.min() < 1 / 8 + 1e-3
    assert 1 / 3 - 1e-3 < slopes.max() < 1 / 3 + 1e-5
    assert abs(float(slopes.mean()) - (1 / 8 + 1 / 3) / 2) < 1e-3
    fixed = layer.eval()(features)
    torch.testing.assert_close(fixed[negative], features[negative] * (1 / 8 + 1 / 3) / 2)


def test_the_seed_alone_decides_the_slopes() -> None:
    network, images = small(), torch.randn(2, 4, 8, 8, 8)

    def drawn(seed: int, batch: Tensor) -> Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return network(batch)

    assert torch.equal(drawn(1, images), drawn(1, images))
    assert not torch.equal(drawn(1, images), drawn(2, images))
    other = torch.cat([images[:1], 3 * images[1:]])
    assert torch.equal(drawn(1, images)[0], drawn(1, other)[0])  # a neighbour does not shift the draws


def test_patients_can_be_taken_several_at_once() -> None:
    layer, features = RReLU(), -torch.ones(3, 2, 2, 2, 2)
    torch.manual_seed(0)
    found = torch.vmap(layer, randomness="different")(features)
    assert found.shape == features.shape
    assert len(found.unique()) == found.numel()


def test_a_group_has_eight_channels() -> None:
    norms = [m for m in small().modules() if isinstance(m, nn.GroupNorm)]
    assert {m.num_channels // m.num_groups for m in norms} == {8}
    assert {m.num_channels for m in norms} == {8, 16, 24}


def test_evaluation_repeats_itself_bit_for_bit() -> None:
    network, images = small().eval(), torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small()
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_every_region_starts_at_the_prior() -> None:
    starts = [
        one.head.bias.sigmoid().item() for one in cascade_unet(channels=(8, 16), prior=0.2).networks.values()
    ]
    assert starts == pytest.approx([0.2] * 3)


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4; set train.patch"
    ):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match=r"model\.channels=\[8\]"):
        cascade_unet(channels=[8])
    with pytest.raises(ValueError, match=r"model\.channels=\[8, 12\]: must be multiples of 8"):
        cascade_unet(channels=[8, 12])
    for wrong in ([], ["WT", "ED"]):
        with pytest.raises(ValueError, match=r"model\.trains=.*: name one or more of WT, TC, ET"):
            cascade_unet(trains=wrong)


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("cascade_unet")
    assert count(network) == 17_666_115
    assert rules == {"patch": [160, 160, 160], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("cascade_unet", "small")
    assert head_modules(network, rules["patch"]) == tuple(f"networks.{region}.head" for region in REGIONS)
    assert 100_000 < count(network) < 1_000_000
    assert rules["multiple"] == 4

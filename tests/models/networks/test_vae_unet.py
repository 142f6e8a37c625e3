"""U-Net with a variational branch: its size, both terms by hand, and that a prediction needs nothing of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedbrats.config.targets import ConfigError
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.dice import Dice
from fedbrats.models.build import check_beside
from fedbrats.models.networks.vae_unet import vae_unet
from fedbrats.personalization.head_local import HeadLocal
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, losses_of_steps, parameters_with_two_names
from tests.models.test_build import config_of

SIDES = (16, 24, 8)


def small(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return vae_unet(**{"init_filters": 8, "blocks_down": (1, 1), "latent": 6, "patch": SIDES} | settings)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    """The U-Net is SegResNet, 4,702,227 with three outputs; the branch is Myronenko's Table 2 at half its widths."""
    numbers = 16 * 9 * 9 * 9  # 144 / 16 in a row
    down = 2 * 128 + (27 * 128 * 16 + 16) + (numbers * 256 + 256)  # norm, strided convolution, mu and sigma
    up = (128 * numbers + numbers) + 16 * 128
    for width in (64, 32, 16):
        up += 2 * width * width + 2 * (27 * width * width + 2 * width)
    with torch.device("meta"):
        assert count(vae_unet(branch=False)) == 4_702_227 + 16 + 1
        assert count(vae_unet().branch) == down + up + 16 * 4 + 4 == 4_850_084


def test_both_terms_by_hand() -> None:
    """Dense layers that say mu and log sigma^2 whatever they see, and a reconstruction of one number."""
    network, images = small(), torch.randn(2, 4, *SIDES)
    dense, last = network.branch.down[-1], network.branch.up[-1][0]
    with torch.no_grad():
        dense.weight.zero_()
        dense.bias[:6], dense.bias[6:] = 0.5, math.log(4.0)
        last.weight.zero_()
        last.bias.fill_(0.25)
        _, error, divergence = network(images)
    torch.testing.assert_close(error, (images - 0.25).square().mean((1, 2, 3, 4)))
    by_hand = 6 * (0.5**2 + 4 - math.log(4) - 1) / (16 * 24 * 8)
    torch.testing.assert_close(divergence, torch.full((2,), by_hand))


def test_what_is_drawn_has_the_mean_and_the_deviation_that_are_said() -> None:
    network, seen = small(latent=4000), []
    network.branch.up[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    dense = network.branch.down[-1]
    with torch.no_grad():
        dense.weight.zero_()
        dense.bias[:4000], dense.bias[4000:] = -1.0, math.log(9.0)
        network(torch.randn(2, 4, *SIDES))
    for drawn in seen[0]:
        assert drawn.mean().item() == pytest.approx(-1, abs=0.2)
        assert drawn.std().item() == pytest.approx(3, abs=0.15)
    assert not torch.equal(seen[0][0], seen[0][1])


def test_a_prediction_needs_nothing_of_the_branch() -> None:
    network, images = small(), torch.randn(1, 4, 8, 10, 12)
    with torch.no_grad():
        before = network.eval()(images)
        for parameter in network.branch.parameters():
            parameter.fill_(float("nan"))
        assert torch.equal(network(images), before)
        network.branch = None
        assert torch.equal(network(images), before)
        assert torch.equal(network.train()(images), before)  # without a branch training has the logits alone


def test_the_terms_train_the_encoder_and_the_branch_and_not_the_decoder() -> None:
    network = small()
    _, error, divergence = network(torch.randn(2, 4, *SIDES))
    (error + divergence).sum().backward()
    reached = {
        name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert {name for name, _ in network.named_parameters() if "branch" in name} <= reached
    assert any(name.startswith("segmentation.down_layers") for name in reached)
    assert not any(name.startswith(("segmentation.up", "segmentation.conv_final")) for name in reached)


def test_terms_of_a_sample_are_its_own() -> None:
    """Patient-level privacy rests on it."""
    network, images = small(), torch.randn(2, 4, *SIDES)
    found = []
    with torch.no_grad():
        for factor in (1, -3):
            torch.manual_seed(1)  # the same draw
            images[1] *= factor
            found.append([output[0] for output in network(images)])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_the_terms_count_as_configured() -> None:
    network, labels = small(), torch.zeros(2, *SIDES, dtype=torch.uint8)
    labels[:, 4:9, 4:9, 2:6] = 3
    outputs = network(torch.randn(2, 4, *SIDES))
    found = deep_supervised(Dice(), outputs, labels, [1, 0.1, 0.2])
    voxels = deep_supervised(Dice(), outputs[0], labels)
    torch.testing.assert_close(1.3 * found, voxels + 0.1 * outputs[1] + 0.2 * outputs[2])


def test_the_branch_learns_the_image() -> None:
    network = small()
    images = torch.zeros(2, 4, *SIDES)
    images[0, :, :8], images[1, :, 8:] = 2.0, 2.0
    optimizer, errors = torch.optim.Adam(network.parameters(), lr=0.01), []
    for _ in range(12):
        optimizer.zero_grad()
        _, error, divergence = network(images)
        (error + divergence).mean().backward()
        optimizer.step()
        errors.append(error.mean().item())
    assert errors[-1] < 0.6 * errors[0]


def test_steps_lower_the_loss_without_a_branch() -> None:
    network = small(branch=False, out_channels=3)
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[8, 8, 5\]: sides must be multiples of 2"):
        small().eval()(torch.zeros(1, 4, 8, 8, 5))
    with pytest.raises(ValueError, match=r"\[8, 8, 8\] in training: .*model\.patch=\[16, 24, 8\]"):
        small()(torch.zeros(1, 4, 8, 8, 8))
    for settings, said in (
        ({"patch": [16, 24, 6]}, r"model\.patch=\[16, 24, 6\]: three sides that are multiples of 4"),
        ({"blocks_down": [1]}, r"model\.blocks_down=\[1\]"),
        ({"latent": 0}, r"model\.latent=0"),
        ({"init_filters": 12}, r"\[12\] must be multiples of 8"),
        ({"norm": "layer"}, r"model\.norm"),
    ):
        with pytest.raises(ValueError, match=said):
            small(**settings)


def test_patient_level_privacy_takes_group_norm_and_refuses_batch_norm() -> None:
    private = ("model=vae_unet", "model.size=small", "privacy=dp_sgd", "privacy.target_epsilon=8")
    assert config_of(*private).train.deep_supervision == [1, 0.1, 0.1]
    with pytest.raises(ConfigError, match=r"privacy=dp_sgd: \d+ modules mix patients"):
        config_of(*private, "model.norm=batch")


def test_a_term_of_the_whole_batch_is_refused_before_the_run() -> None:
    class Mixing(nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [images, images.square().mean()]

    config = config_of("model=vae_unet", "model.size=small")
    with pytest.raises(ConfigError, match=r"a term of shape \(\) .* mixes the samples of a batch"):
        check_beside(config, Mixing(), Dice())
    with torch.device("meta"):
        check_beside(config, configured("vae_unet", "small")[0], Dice())


def test_another_training_patch_is_refused_before_the_run() -> None:
    other = ("model=vae_unet", "model.size=small", "train.patch=[16,16,16]")
    with pytest.raises(ConfigError, match=r"train\.patch=\[16, 16, 16\].*set model\.patch"):
        config_of(*other)
    assert config_of(*other, "model.patch=[16,16,16]").model["patch"] == [16, 16, 16]
    config_of(*other, "model.branch=false", "train.deep_supervision=null")


def test_the_branch_can_stay_at_the_sites() -> None:
    network = small()
    stays = HeadLocal(layers=["branch"]).stays(network, SIDES)
    assert set(stays) == {name for name, _ in network.named_parameters() if name.startswith("branch.")}


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("vae_unet")
    assert count(network) == 9_552_328
    assert rules == {"patch": [144, 144, 144], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("vae_unet", "small")
    assert count(network) == 247_112
    assert "segmentation.conv_final.2.conv" in "".join(head_modules(network, rules["patch"]))
    assert [tuple(o.shape) for o in network(torch.zeros(2, 4, *rules["patch"]))] == [
        (2, 4, 32, 32, 32),
        (2,),
        (2,),
    ]

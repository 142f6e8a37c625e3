"""Multi-plane UNet++: Xception's size, the nested stages one by one, a vote of the planes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from fedbrats.config.targets import ConfigError
from fedbrats.models.facts import mixing_modules
from fedbrats.models.networks.unet_plus_plus import unet_plus_plus
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, node, parameters_with_two_names
from tests.models.slice_checks import losses_of_steps, shapes_through
from tests.models.test_build import config_of

XCEPTION = 22_855_952  # trainable parameters of Keras's, with its last layer
LAST_LAYER = 2048 * 1000 + 1000
FOURTH_CHANNEL = 3 * 3 * 32
FOUND = (
    34_007_628  # also segmentation_models_pytorch 0.3.3: UnetPlusPlus("xception", in_channels=4, classes=4)
)


def small(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return unet_plus_plus(encoder=(16, 24, 32, 48, 64), middle=1, decoder=(16, 16, 24, 32, 48), **settings)


def test_the_encoder_is_xception() -> None:
    with torch.device("meta"):
        network = unet_plus_plus()
    assert count(network.encoder) == XCEPTION - LAST_LAYER + FOURTH_CHANNEL == 20_807_240


def test_size_is_the_sum_of_the_documented_stages() -> None:
    def node(
        inputs: int, width: int
    ) -> int:  # two 3x3 convolutions without bias, the two arrays of their norms
        return 9 * (inputs * width + width * width) + 4 * width

    stages = {
        "x4_1": node(2048 + 728, 256),
        **{"x3_1": node(728 + 256, 256), "x3_2": node(256 + 2 * 256, 128)},
        **{"x2_1": node(256 + 128, 128), "x2_2": node(256 + 2 * 128, 128), "x2_3": node(128 + 3 * 128, 64)},
        **{"x1_1": node(128 + 64, 64), "x1_2": node(128 + 2 * 64, 64), "x1_3": node(128 + 3 * 64, 64)},
        **{"x1_4": node(64 + 4 * 64, 32), "x0_5": node(32, 16)},
    }
    with torch.device("meta"):
        network = unet_plus_plus()
    assert {name: count(stage) for name, stage in network.stages.items()} == stages
    assert count(network) == 20_807_240 + sum(stages.values()) + 9 * 16 * 4 + 4 == FOUND


def test_sides_are_halved_five_times() -> None:
    shapes = shapes_through(unet_plus_plus, lambda network: list(network.encoder), (256, 256))
    assert [out for _, out in shapes] == [
        (64, 128, 128),
        (128, 64, 64),
        (256, 32, 32),
        (728, 16, 16),
        (2048, 8, 8),
    ]
    final = shapes_through(
        unet_plus_plus, lambda network: [network.stages[f"x{4 - k}_{k + 1}"] for k in range(5)], (256, 256)
    )
    assert [out for _, out in final] == [
        (256, 16, 16),
        (128, 32, 32),
        (64, 64, 64),
        (32, 128, 128),
        (16, 256, 256),
    ]


def test_a_stage_takes_the_one_below_by_nearest_neighbour_and_all_before_it_at_its_level() -> None:
    """X^(1,3) from X^(2,2), X^(1,0), X^(1,1) and X^(1,2)."""
    network, seen = small().eval(), {}
    for name, module in [("x1_0", network.encoder[0]), *network.stages.items()]:
        module.register_forward_hook(
            lambda _, given, out, name=name: seen.update({name: (given[0], out.clone())})
        )
    with torch.no_grad():
        network(torch.randn(1, 4, 64, 96))
    given = seen["x1_3"][0]
    below = interpolate(seen["x2_2"][1], size=(32, 48), mode="nearest")
    expected = torch.cat([below, *(seen[f"x1_{k}"][1] for k in (2, 1, 0))], dim=1)
    assert torch.equal(given, expected)
    assert torch.equal(seen["x0_5"][0], interpolate(seen["x1_4"][1], size=(64, 96), mode="nearest"))


def test_only_the_final_stage_is_supervised() -> None:
    network = small().train()
    logits = network(torch.randn(2, 4, 32, 64))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 4, 32, 64)
    assert head_modules(network, [64, 64]) == ("head",)


def test_steps_lower_the_loss_and_reach_everything() -> None:
    network = small()
    losses = losses_of_steps(network)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    assert not parameters_with_two_names(network)


def test_the_tumour_starts_at_the_prior() -> None:
    torch.testing.assert_close(
        small().head.bias.softmax(0).detach(), torch.tensor([0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3])
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[64, 48\]: sides must be multiples of 32"):
        small()(torch.zeros(1, 4, 64, 48))
    for settings, said in (
        ({"encoder": [8, 16, 32, 48, 64]}, r"model\.encoder=\[8, .*5 widths of 16 or more"),
        ({"decoder": [16, 16]}, r"model\.decoder=\[16, 16\]: 5 widths"),
        ({"middle": -1}, r"model\.middle=-1"),
    ):
        with pytest.raises(ValueError, match=said):
            unet_plus_plus(**settings)


def test_batch_norm_is_refused_with_patient_level_privacy() -> None:
    assert mixing_modules(small())
    with pytest.raises(ConfigError, match=r"privacy=dp_sgd: \d+ modules mix patients"):
        config_of("model=unet_plus_plus", "model.size=small", "privacy=dp_sgd")


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("unet_plus_plus")
    assert count(network) == FOUND
    assert (rules["patch"], rules["resize"], rules["multiple"]) == ([240, 240], [256, 256], 32)
    assert list(node("unet_plus_plus", "full")["encoder"]) == [64, 128, 256, 728, 2048]
    network, _ = configured("unet_plus_plus", "small")
    assert count(network) == 296_052
    # as printed: a run for each plane, whose predictions vote
    config = config_of("model=unet_plus_plus", "model.size=small", "model.input.planes=[coronal]")
    assert (config.model["input"]["planes"], config.inference.combine) == (["coronal"], "vote")

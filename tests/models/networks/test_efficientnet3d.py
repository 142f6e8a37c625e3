"""EfficientNet in 3D: B0 as printed, its small variant, and what the federation asks of it."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.efficientnet import EfficientNetBN

from fedbrats.models.facts import mixing_modules
from fedbrats.models.networks.efficientnet3d import efficientnet3d
from tests.models.network_checks import configured, count


def test_size_is_that_of_the_b0_that_monai_knows() -> None:
    with torch.device("meta"):
        b0 = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=4, num_classes=1)
        assert count(efficientnet3d()) == count(b0)
        # Of its 2D twin with 1000 classes and 3 channels 5.3 million are printed (Tan and Le, Table 2).
        twin = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2)
    assert round(count(twin) / 1e6, 1) == 5.3


@pytest.mark.slow
def test_the_function_is_that_of_monais_b0() -> None:
    torch.manual_seed(0)
    b0 = EfficientNetBN(
        "efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=4, num_classes=1
    ).eval()
    mine = efficientnet3d().eval()
    mine.load_state_dict(b0.state_dict())
    image = torch.randn(1, 4, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(mine(image), b0(image), atol=1e-5, rtol=1e-5)


def test_it_begins_near_one_half_and_gives_one_logit_per_case() -> None:
    torch.manual_seed(0)
    network = efficientnet3d(width=0.5, stages=4).eval()
    with torch.no_grad():
        logits = network(torch.randn(3, 4, 32, 32, 32))
    assert logits.shape == (3, 1)
    assert (logits.sigmoid() - 0.5).abs().max() < 0.05


def test_group_norm_mixes_nobody() -> None:
    assert mixing_modules(efficientnet3d(width=0.5, stages=4))
    assert not mixing_modules(efficientnet3d(width=0.5, stages=4, norm="group"))


def test_configured_sizes() -> None:
    with torch.device("meta"):
        (full, rules), (small, _) = configured("efficientnet3d"), configured("efficientnet3d", "small")
    assert rules["patch"] == [128, 128, 128]
    assert count(full) == count(efficientnet3d()) > 20 * count(small)


@pytest.mark.parametrize(
    ("wrong", "words"), [({"stages": 8}, "model.stages=8"), ({"norm": "layer"}, "layer")]
)
def test_wrong_settings_are_named(wrong: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        efficientnet3d(**wrong)

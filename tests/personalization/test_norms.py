"""What the user is told when a network has no norm layers of the kind that a method needs."""

from __future__ import annotations

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.personalization.base import Personalization
from fedbrats.personalization.bn_local import BnLocal
from fedbrats.personalization.bn_stats_local import BnStatsLocal
from fedbrats.personalization.norm_local import NormLocal
from fedbrats.personalization.norms import norm_choices
from tests.personalization.networks import PATCH, configured

OTHER = "choose a network that has them (`python sims/models.py` lists the norm layers of each)"
MODELS = "fedbrats.models.networks"
UNET = {"_target_": f"{MODELS}.residual_unet.residual_unet", "channels": [8, 16], "size": "full"}
NNUNET = {"_target_": f"{MODELS}.nnunet.nnunet", "channels": [8, 16], "size": "full"}


@pytest.mark.parametrize(
    ("personal", "model", "values"),
    [
        (BnLocal(), UNET, "batch"),
        (BnStatsLocal(), {**UNET, "norm": "group"}, "batch"),
        (BnLocal(), {**UNET, "input": {"patch": PATCH}}, "batch"),
        (BnLocal(), NNUNET, ""),  # no such option
        (NormLocal(), UNET, "instance or group"),  # unseen=initial is not for BatchNorm
        (NormLocal(unseen="average"), UNET, "batch or instance or group"),
        (NormLocal(), {**UNET, "channels": [4, 8]}, "instance"),  # 8 groups do not divide 4
        (
            BnLocal(),
            {"_target_": "monai.networks.nets.BasicUNet", "in_channels": 4},
            "batch",
        ),  # an outside one
    ],
)
def test_values_are_named_that_give_the_network_what_the_method_needs(
    personal: Personalization, model: dict[str, object], values: str
) -> None:
    found = norm_choices(personal, model, PATCH)
    assert found == (f"set model.norm={values}, or {OTHER}" if values else OTHER)


@pytest.mark.parametrize(
    ("method", "name"), [("bn_local", "segresnet"), ("bn_stats_local", "segresnet"), ("bn_local", "nnunet")]
)
def test_a_configuration_is_refused_with_what_works_for_its_network(method: str, name: str) -> None:
    overrides = (f"personalization={method}", "report.select=last")
    works = "set model.norm=batch, or choose" if name == "segresnet" else "choose"
    with pytest.raises(ConfigError) as caught:
        configured(name, *overrides)
    assert str(caught.value).startswith(f"personalization={method}: ")
    assert f"; {works} a network that has them" in str(caught.value)
    if name == "segresnet":
        configured(name, "model.norm=batch", *overrides)


def test_nothing_else_is_answered_with_norms() -> None:
    with pytest.raises(ConfigError, match=r"no module 'nothing'") as caught:
        configured("segresnet", "personalization=head_local", "personalization.layers=[nothing]")
    assert "sims/models.py" not in str(caught.value)

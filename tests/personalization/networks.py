"""Networks whose norm layers can be counted by hand, and the small ones of conf/model."""

from __future__ import annotations

import functools

import torch
from hydra import compose, initialize_config_dir
from monai.networks.nets import BasicUNet, DynUNet
from torch import nn

from fedbrats.checks.config import checked
from fedbrats.commands.compose import register_with_hydra
from fedbrats.commands.models.table import model_names
from fedbrats.config.schema import Config
from fedbrats.models.build import build_network, patch_of
from tests.tiny import ROOT

SMALL = model_names(size="small")
PATCH = [16, 16, 16]  # sides that every network built here by hand takes


@functools.cache
def _config(name: str, *overrides: str) -> Config:
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checked(compose("config", overrides=[f"model={name}", "model.size=small", *overrides]))


@functools.cache
def configured(name: str, *overrides: str) -> nn.Module:
    """The small variant of `model=<name>` on the meta device."""
    model = _config(name, *overrides).model
    with torch.device("meta"):
        return build_network(model)


def own_patch(name: str) -> list[int]:
    """The patch of the small variant of `model=<name>`."""
    return patch_of(_config(name))


def dynunet(norm: str = "batch", deep: bool = False) -> DynUNet:
    """Five blocks of two norms each; it registers its blocks a second time inside `skip_layers`."""
    more = {"deep_supervision": True, "deep_supr_num": 1} if deep else {}
    return DynUNet(3, 4, 3, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 16), norm_name=norm, **more)


def basic_unet() -> BasicUNet:
    """Nine pairs of convolutions, a norm each."""
    return BasicUNet(3, 4, 3, features=(4, 4, 8, 8, 8, 4), norm=("batch", {"affine": True}))

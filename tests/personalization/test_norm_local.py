"""Norms of any kind at home."""

from __future__ import annotations

import pytest
from torch import nn

from fedbrats.config.targets import ConfigError
from fedbrats.models.networks.residual_unet import residual_unet
from fedbrats.personalization.base import local_and_travelling
from fedbrats.personalization.norm_local import NormLocal
from fedbrats.personalization.norms import NoNorms
from tests.personalization.networks import PATCH, configured
from tests.personalization.toy_work import conv_network


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_weights_and_biases_of_every_norm_stay(norm: str) -> None:
    network = residual_unet(channels=(8, 16), norm=norm)
    home, travels = local_and_travelling(network, NormLocal().stays(network, PATCH))
    assert len(home) == 2 * 5
    kinds = {type(network.get_submodule(name.rpartition(".")[0])) for name in home}
    assert kinds == {nn.GroupNorm if norm == "group" else nn.InstanceNorm3d}
    assert {type(network.get_submodule(name.rpartition(".")[0])) for name in travels}.isdisjoint(kinds)


def test_batch_norm_has_its_statistics_with_it() -> None:
    names = ("1.weight", "1.bias", "5.weight", "5.bias", "1.running_mean", "1.running_var")
    assert NormLocal(unseen="recalibrate").stays(conv_network(), PATCH) == names


def test_layer_norm_of_a_configured_model() -> None:
    """jonsson_resunet has both BatchNorm and LayerNorm."""
    network = configured("jonsson_resunet")
    home = NormLocal(unseen="average").stays(network, PATCH)
    kinds = {type(network.get_submodule(name.rpartition(".")[0])).__name__ for name in home}
    assert kinds == {"BatchNorm2d", "ChannelNorm"}


def test_nothing_to_keep_local_names_the_options_that_work() -> None:
    with pytest.raises(NoNorms, match="personalization=norm_local: Sequential has no normalisation layer"):
        NormLocal().stays(nn.Sequential(nn.Conv3d(4, 2, 1), nn.InstanceNorm3d(2)), PATCH)


def test_unseen_must_fit_the_norms() -> None:
    plain = residual_unet(channels=(8, 16), norm="group")
    with pytest.raises(ConfigError, match=r"unseen=initial.*choose average or recalibrate or instance"):
        NormLocal().stays(conv_network(), PATCH)
    for unseen in ("recalibrate", "instance"):
        with pytest.raises(ConfigError, match=rf"unseen={unseen}.*choose initial or average\."):
            NormLocal(unseen=unseen).stays(plain, PATCH)
        assert NormLocal(unseen=unseen).stays(conv_network(), PATCH)
    assert NormLocal(unseen="average").stays(plain, PATCH)
    with pytest.raises(ValueError, match=r"personalization\.unseen"):
        NormLocal(unseen="")


def test_it_is_sound_with_privacy() -> None:
    assert NormLocal().unsound_with_dp() is None
    assert (NormLocal().keeps_state, NormLocal().unseen) == (True, "initial")

"""FedBN: the list of what stays, and refusals that say what to do."""

from __future__ import annotations

import pytest
from torch import nn

from fedbrats.config.targets import ConfigError
from fedbrats.models.networks.residual_unet import residual_unet
from fedbrats.models.networks.segresnet import segresnet
from fedbrats.personalization.base import local_and_travelling
from fedbrats.personalization.bn_local import BnLocal
from fedbrats.personalization.norms import NoNorms
from tests.personalization.networks import PATCH, dynunet
from tests.personalization.toy_work import ConvWork, conv_network


def test_what_stays_is_batch_norm_and_nothing_else() -> None:
    stays = BnLocal().stays(conv_network(), PATCH)
    assert stays == ("1.weight", "1.bias", "1.running_mean", "1.running_var")
    network = segresnet(init_filters=8, blocks_down=(1, 1), blocks_up=(1,), norm="batch")
    _, travels = local_and_travelling(network, BnLocal().stays(network, PATCH))
    layers = {name.rpartition(".")[0] for name in travels}
    assert not any(
        isinstance(network.get_submodule(layer), nn.modules.batchnorm._BatchNorm) for layer in layers
    )
    assert len(BnLocal().stays(dynunet(), PATCH)) == 40


def test_a_round_is_a_plain_one() -> None:
    work = ConvWork(conv_network())
    BnLocal().round(work)
    assert work.done == [("train", 2, 1.0)]
    assert work.state == {}
    assert BnLocal().keeps_state


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_nothing_to_keep_local_names_the_options_that_work(norm: str) -> None:
    with pytest.raises(NoNorms, match=r"personalization=bn_local: UNet has no .*=norm_local"):
        BnLocal().stays(residual_unet(channels=(8, 16), norm=norm), PATCH)
    assert BnLocal().stays(residual_unet(channels=(8, 16), norm="batch"), PATCH)
    with pytest.raises(NoNorms, match="no BatchNorm layer with arrays"):
        BnLocal().stays(nn.Sequential(nn.BatchNorm3d(2, affine=False, track_running_stats=False)), PATCH)


def test_without_running_statistics_there_is_nothing_to_recalibrate() -> None:
    network = nn.Sequential(nn.Conv3d(4, 2, 1), nn.BatchNorm3d(2, track_running_stats=False))
    with pytest.raises(ConfigError, match=r"unseen=recalibrate.*average or instance"):
        BnLocal().stays(network, PATCH)
    assert BnLocal(unseen="average").stays(network, PATCH) == ("1.weight", "1.bias")


def test_options_and_privacy() -> None:
    assert BnLocal().unseen == "recalibrate"
    with pytest.raises(
        ValueError, match=r"personalization\.unseen=initial: choose average, recalibrate, instance"
    ):
        BnLocal(unseen="initial")
    reason = BnLocal().unsound_with_dp()
    assert reason is not None
    assert "personalization=norm_local" in reason
    assert "GroupNorm" in reason

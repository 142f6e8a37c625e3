"""SiloBN: only running statistics stay."""

from __future__ import annotations

import pytest
from torch import nn

from fedbrats.models.networks.segresnet import segresnet
from fedbrats.personalization.base import local_and_travelling
from fedbrats.personalization.bn_stats_local import BnStatsLocal
from fedbrats.personalization.norms import NoNorms
from tests.personalization.networks import PATCH, dynunet
from tests.personalization.toy_work import conv_network


def test_weights_and_biases_travel() -> None:
    network = conv_network()
    home, travels = local_and_travelling(network, BnStatsLocal().stays(network, PATCH))
    assert home == ["1.running_mean", "1.running_var"]
    assert {"1.weight", "1.bias"} <= set(travels)
    assert len(BnStatsLocal().stays(dynunet(), PATCH)) == 20


def test_nothing_to_keep_local_names_the_options_that_work() -> None:
    with pytest.raises(NoNorms, match=r"bn_stats_local: SegResNet has no "):
        BnStatsLocal().stays(segresnet(), PATCH)
    # weights, but no statistics
    with pytest.raises(NoNorms, match="no BatchNorm layer with running statistics"):
        BnStatsLocal().stays(nn.Sequential(nn.BatchNorm3d(2, track_running_stats=False)), PATCH)


def test_options_and_privacy() -> None:
    assert (BnStatsLocal().unseen, BnStatsLocal().keeps_state) == ("recalibrate", True)
    with pytest.raises(ValueError, match=r"personalization\.unseen"):
        BnStatsLocal(unseen="mean")
    assert "running statistics" in (BnStatsLocal().unsound_with_dp() or "")

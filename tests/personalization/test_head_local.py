"""FedPer: the heads, or the layers that are named."""

from __future__ import annotations

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.personalization.base import local_and_travelling
from fedbrats.personalization.head_local import HeadLocal
from tests.personalization.networks import PATCH, SMALL, configured, dynunet, own_patch
from tests.personalization.toy_work import ConvWork, conv_network


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize("name", SMALL)
def test_every_configured_network_has_a_head_and_a_body(name: str) -> None:
    network = configured(name)
    home, travels = local_and_travelling(network, HeadLocal().stays(network, own_patch(name)))
    size = {key: tensor.numel() for key, tensor in network.named_parameters()}
    assert home
    # The dense layer of the one's branch is a head, too, and the other's graph is narrow where it is small.
    most = 0.2 if name in ("vae_unet", "gnn_cnn") else 0.1
    assert sum(size.get(key, 0) for key in home) < most * sum(size.get(key, 0) for key in travels)


def test_arrays_of_the_heads() -> None:
    assert HeadLocal().stays(conv_network(), PATCH) == ("6.weight", "6.bias")
    deep = configured("nnunet")
    assert HeadLocal().stays(deep, PATCH) == ("heads.0.weight", "heads.1.weight", "heads.2.weight")


def test_named_layers_with_all_that_is_in_them() -> None:
    network = conv_network()
    assert HeadLocal(layers=["6", "1"]).stays(network, PATCH) == (
        *("1.weight", "1.bias", "6.weight", "6.bias"),
        *("1.running_mean", "1.running_var"),
    )
    segresnet = configured("segresnet")
    final = HeadLocal(layers=["conv_final"]).stays(segresnet, PATCH)
    assert final
    assert set(final) == {name for name in segresnet.state_dict() if name.startswith("conv_final.")}
    # under a second name: what stays is listed by the name that travels
    twice = dynunet()
    alias = next(
        n
        for n, m in twice.named_modules(remove_duplicate=False)
        if m is twice.bottleneck and n != "bottleneck"
    )
    assert HeadLocal(layers=[alias]).stays(twice, PATCH) == HeadLocal(layers=["bottleneck"]).stays(
        twice, PATCH
    )
    assert all(name.startswith("bottleneck.") for name in HeadLocal(layers=[alias]).stays(twice, PATCH))


def test_bad_names() -> None:
    with pytest.raises(ConfigError, match=r"no module 'head'; it has 0, 1, 2"):
        HeadLocal(layers=["head"]).stays(conv_network(), PATCH)
    with pytest.raises(ConfigError, match=r"'2' has no arrays"):
        HeadLocal(layers=["6", "2"]).stays(conv_network(), PATCH)
    with pytest.raises(ValueError, match=r"personalization\.layers=\[\]"):
        HeadLocal(layers=[])


def test_a_round_is_a_plain_one_and_sound_with_privacy() -> None:
    work = ConvWork(conv_network())
    HeadLocal().round(work)
    assert work.done == [("train", 2, 1.0)]
    assert HeadLocal().unsound_with_dp() is None
    assert (HeadLocal().keeps_state, HeadLocal().unseen) == (True, "average")
    with pytest.raises(ValueError, match=r"personalization\.unseen=recalibrate: choose average, initial"):
        HeadLocal(unseen="recalibrate")

"""UNCE: the context encoding by hand, what the semantic loss is told, dropout for Monte Carlo passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedbrats.config.schema import InferenceConfig, InputConfig
from fedbrats.config.targets import ConfigError
from fedbrats.inference.predict import predict
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.dice import Dice
from fedbrats.losses.semantic import WithPresence
from fedbrats.models.networks.unce import ContextEncoding, unce
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import (
    configured,
    count,
    largest_difference_in_channels_last,
    losses_of_steps,
    parameters_with_two_names,
)
from tests.models.test_build import config_of


def small(dropout: float = 0.0, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return unce(channels=(8, 16, 24), codewords=5, dropout=dropout, **settings)


def test_size_is_the_sum_of_the_documented_layers() -> None:
    def convolution(before: int, width: int) -> int:  # with bias and the two arrays of its norm
        return 27 * before * width + 3 * width

    widths = (16, 32, 64, 128, 256)
    down = sum(convolution(i, o) + convolution(o, o) for i, o in zip((4, *widths), widths))
    up = sum(
        8 * 2 * w * w + w + convolution(2 * w, w) + convolution(w, w) for w in widths[-2::-1]
    )  # transposed convolution of 2, two convolutions
    encoding = 32 * 256 + 32 + 2 * 256  # codewords, their smoothing, layer norm
    connected = (256 * 256 + 256) + (256 * 4 + 4)  # factors, presence
    with torch.device("meta"):
        assert count(unce()) == down + up + encoding + connected + 4 * 16 + 4 == 5_724_760
        assert count(unce(semantic=False)) == 5_724_760 - (256 * 4 + 4)


def test_residuals_are_those_of_the_paper() -> None:
    """Zhang et al., section 3.1, voxel by voxel: e_k = sum_i softmax_k(-s_k |x_i - d_k|^2) (x_i - d_k)."""
    torch.manual_seed(0)
    encoding, features = ContextEncoding(6, 3).double(), torch.randn(2, 6, 3, 2, 2, dtype=torch.float64)
    expected = torch.zeros(2, 3, 6, dtype=torch.float64)
    for sample in range(2):
        for x in features[sample].flatten(1).T:
            residuals = x - encoding.codebook.detach()
            powers = torch.exp(-encoding.smoothing.detach() * residuals.square().sum(1))
            expected[sample] += (powers / powers.sum()).unsqueeze(1) * residuals
    torch.testing.assert_close(encoding.gathered(features).detach(), expected)


def test_the_encoding_does_not_know_where_a_voxel_lies() -> None:
    torch.manual_seed(0)
    encoding, features = ContextEncoding(6, 3), torch.randn(1, 6, 4, 4, 4)
    shuffled = features.flatten(2)[:, :, torch.randperm(64)].reshape(features.shape)
    torch.testing.assert_close(encoding(shuffled), encoding(features))


def test_the_context_scales_each_channel_of_the_deepest_features() -> None:
    network, images = small().eval(), torch.randn(1, 4, 16, 16, 16)
    nn.init.zeros_(network.factors.weight)
    nn.init.constant_(network.factors.bias, -50.0)  # a factor of nothing
    seen = []
    network.up[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(images)
        nn.init.zeros_(network.factors.bias)  # a factor of one half
        network(images)
        deepest = images
        for level, block in enumerate(network.encoder):
            deepest = block(deepest if level == 0 else network.pool(deepest))
    assert not seen[0].abs().max() > 1e-12
    torch.testing.assert_close(seen[1], deepest / 2)


def test_training_also_tells_what_is_present() -> None:
    network, images = small(), torch.zeros(2, 4, 8, 16, 12)
    logits, presence = network(images)
    assert (logits.shape, presence.shape) == ((2, 4, 8, 16, 12), (2, 4, 1, 1, 1))
    assert network.eval()(images).shape == (2, 4, 8, 16, 12)
    assert isinstance(small(semantic=False)(images), torch.Tensor)


@pytest.mark.slow
def test_the_presence_is_learnt_from_the_whole_patch() -> None:
    """Patches of noise, half of them with a block that only a look at the whole finds; voxels count nothing here."""
    network = small()
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(8, 8, 8, 8, dtype=torch.uint8)
    labels[::2, 5:7, 5:7, 5:7] = 3
    images = torch.randn(8, 4, 8, 8, 8, generator=generator) + 3 * labels.unsqueeze(1)
    optimizer, loss = torch.optim.Adam(network.parameters(), lr=0.01), WithPresence(Dice())
    for _ in range(30):
        optimizer.zero_grad()
        deep_supervised(loss, network(images), labels, [0, 1]).mean().backward()
        optimizer.step()
    found = network(images)[1].detach().flatten(1) > 0
    assert found.tolist() == [[True, False, False, True], [True, False, False, False]] * 4


def test_thirty_per_cent_are_dropped_after_every_convolution_of_a_stage() -> None:
    network = unce(channels=(8, 16))
    layers = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    assert [m.p for m in layers] == [0.3] * 6
    assert sum(isinstance(m, nn.InstanceNorm3d) for m in network.modules()) == 6
    assert not any(isinstance(m, nn.Dropout) for m in unce(channels=(8, 16), dropout=0.0).modules())


def test_passes_with_dropout_in_every_mirroring_differ() -> None:
    image = np.random.default_rng(0).normal(size=(4, 8, 8, 8)).astype(np.float32)
    found = predict(
        small(0.3).eval(),
        image,
        rules=InputConfig(patch=[8, 8, 8]),
        inference=InferenceConfig(flips=True, mc_passes=2),
        window=[8, 8, 8],
        device=torch.device("cpu"),
    )
    assert found.passes == 16
    assert found.spread is not None
    assert float(found.spread.max()) > 0


def test_memory_format_does_not_matter() -> None:
    assert largest_difference_in_channels_last(small(), (8, 16, 12)) < 1e-9


def test_steps_lower_the_loss() -> None:
    network = small(out_channels=3)
    losses = losses_of_steps(network, (16, 16, 16))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in network.parameters())
    assert not parameters_with_two_names(network)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[8, 8, 6\]: sides must be multiples of 4"):
        small()(torch.zeros(1, 4, 8, 8, 6))
    with pytest.raises(ValueError, match="one voxel is left at the deepest level"):
        small()(torch.zeros(1, 4, 4, 4, 4))
    for settings, said in (
        ({"channels": [8]}, r"model\.channels=\[8\]"),
        ({"convolutions": 0}, r"model\.convolutions=0"),
        ({"codewords": 0}, r"model\.codewords=0"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
    ):
        with pytest.raises(ValueError, match=said):
            unce(**settings)


def test_a_loss_that_does_not_read_the_presence_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set loss=dice_semantic, or model\.semantic=false"):
        config_of("model=unce", "model.size=small", "loss=dice")
    own = ("loss=dice", "model.semantic=false", "train.deep_supervision=null")
    assert config_of("model=unce", "model.size=small", *own).loss["_target_"].endswith("Dice")


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("unce")
    assert count(network) == 5_724_760
    assert rules == {"patch": [192, 160, 128], "multiple": 16, "normalise": "zscore"}
    network, rules = configured("unce", "small")
    assert head_modules(network, rules["patch"]) == ("presence", "head")
    assert count(network) == 174_768
    assert [tuple(o.shape) for o in network(torch.zeros(1, 4, *rules["patch"]))] == [
        (1, 4, 32, 32, 32),
        (1, 4, 1, 1, 1),
    ]

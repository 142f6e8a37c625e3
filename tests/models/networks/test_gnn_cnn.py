"""Joint GNN-CNN: the number of parameters, Equation 1 by hand, which loss trains what, and what the CNN may change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedbrats.config.targets import ConfigError
from fedbrats.losses.cross_entropy import CrossEntropy
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.nodes import OUTSIDE, WithNodes
from fedbrats.models.networks.gnn_cnn import GNNCNN, SagePool, box, gnn_cnn
from tests.models.network_checks import configured, count, parameters_with_two_names
from tests.models.test_build import config_of
from tests.tiny import one_round

LOSS = WithNodes(CrossEntropy(), (0.1, 2, 1, 2))


def small() -> GNNCNN:
    torch.manual_seed(0)
    return gnn_cnn(layers=2, width=16, filters=8, kernel=3, cell=4, rounds=2)


def batch() -> tuple[Tensor, Tensor]:
    """Patches 16x16x16 with a bright block of all labels, and a slab of no brain."""
    labels = torch.zeros(2, 16, 16, 16, dtype=torch.uint8)
    for label, low, high in ((2, 3, 12), (1, 5, 10), (3, 6, 9)):
        labels[:, low:high, low:high, low:high] = label
    images = torch.randn(2, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    images += 2 * labels.unsqueeze(1)
    images[..., 14:] = 0
    return images, labels


def test_number_of_parameters() -> None:
    """The paper prints none. By hand: a pooling matrix as wide as the input and one on twice that, with biases."""

    def layer(before: int, width: int) -> int:
        return before * before + before + 2 * before * width + width

    graph = layer(20, 256) + 5 * layer(256, 256) + layer(256, 4)
    cnn = 8 * 16 * 125 + 16 + 16 * 4 * 125 + 4
    with torch.device("meta"):
        assert count(gnn_cnn()) == graph + cnn == 1_064_360 + 24_020


def test_a_layer_is_equation_1() -> None:
    """Node 0 hears 1 and 2, which hear it alone; 3 hears nobody. W_pool = [[1, 0], [0, -1]], W adds both halves."""
    layer = SagePool(2, 2)
    with torch.no_grad():
        layer.pool.weight.copy_(torch.tensor([[1.0, 0], [0, -1]]))
        layer.join.weight.copy_(torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]]))
        layer.pool.bias.zero_()
        layer.join.bias.zero_()
    nodes = torch.tensor([[[1.0, 2], [3, 4], [-5, -6], [7, 8]]])
    near = torch.tensor([[[1, 2, 4], [0, 4, 4], [0, 4, 4], [4, 4, 4]]])
    # relu(W_pool h): [1, 0], [3, 0], [0, 6], [7, 0]
    expected = torch.tensor([[[1.0 + 3, 2 + 6], [3 + 1, 4], [-5 + 1, -6], [7, 8]]])
    torch.testing.assert_close(layer(nodes, near), expected)


def test_each_half_learns_from_its_own_loss() -> None:
    network, (images, labels) = small().train(), batch()
    halves = {"refine": [1, 0], "graph": [0, 1]}
    for name, weights in halves.items():
        network.zero_grad()
        deep_supervised(LOSS, network(images), labels, weights).mean().backward()
        touched = {
            part.split(".")[0]
            for part, p in network.named_parameters()
            if p.grad is not None and p.grad.any()
        }
        assert touched == {name}


def test_the_cnn_changes_voxels_of_the_box_alone() -> None:
    network, (images, _) = small(), batch()
    logits, told = network.train()(images)
    assert torch.equal(network.eval()(images), logits)
    numbers, coarse = told[:, 0], told[:, 1:]
    inside = box(coarse.argmax(1) != 0)
    assert 0 < inside.float().mean() < 1
    changed = (logits != coarse).any(1)
    assert torch.equal(changed, inside)
    outside = (images == 0).all(1)
    assert torch.equal(numbers == OUTSIDE, outside)
    assert torch.equal(coarse.movedim(1, -1)[outside].unique(dim=0), torch.tensor([[1.0, -1, -1, -1]]))
    for number in numbers[0].unique()[1:]:
        assert len(coarse[0].movedim(0, -1)[numbers[0] == number].unique(dim=0)) == 1


def test_the_box_has_a_margin_of_a_voxel() -> None:
    tumour = torch.zeros(2, 8, 8, 8, dtype=torch.bool)
    tumour[0, 2, 3, 0] = tumour[0, 5, 3, 2] = True
    expected = torch.zeros_like(tumour)
    expected[0, 1:7, 2:5, 0:4] = True
    assert torch.equal(box(tumour), expected)


def test_steps_lower_both_losses_and_come_out_the_same_again() -> None:
    images, labels = batch()
    runs = []
    for _ in range(2):
        network, losses = small().train(), []
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
        for _ in range(12):
            optimizer.zero_grad()
            outputs = network(images)
            parts = [deep_supervised(LOSS, outputs, labels, w).mean() for w in ([1, 0], [0, 1])]
            sum(parts).backward()  # type: ignore[union-attr]
            optimizer.step()
            losses.append([float(part.detach()) for part in parts])
        runs.append((losses, [p.detach().clone() for p in network.parameters()]))
    first, last = runs[0][0][0], runs[0][0][-1]
    assert last[0] < 0.8 * first[0]
    assert last[1] < 0.8 * first[1]
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
    assert not parameters_with_two_names(network)
    assert not list(network.buffers())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"out_channels": 3}, r"model\.out_channels=3: must be 4"),
        ({"kernel": 4}, r"model\.kernel=4: must be odd"),
        ({"cell": 0}, r"model\.cell=0: must be positive"),
        ({"compactness": -0.5}, r"model\.compactness=-0\.5: must be positive"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gnn_cnn(**settings)  # type: ignore[arg-type]


def test_bad_sides_are_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[16, 16, 18\]: sides must be multiples of 4"):
        small()(torch.zeros(1, 4, 16, 16, 18))


def test_configurations_build() -> None:
    with torch.device("meta"):
        network, rules = configured("gnn_cnn")
    assert count(network) == 1_088_380
    assert rules == {"patch": [144, 192, 144], "multiple": 6, "normalise": "zscore"}
    with pytest.raises(ConfigError, match=r"logits of supervoxels .* set loss=cross_entropy_nodes"):
        config_of("model=gnn_cnn", "model.size=small", "loss=dice_ce")


@pytest.mark.slow
def test_it_trains_in_a_federation(cache: Path, tmp_path: Path) -> None:
    one_round(cache, tmp_path / "run", "model=gnn_cnn", "model.size=small", "train.patch=[16,16,16]")

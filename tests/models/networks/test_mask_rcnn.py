"""Mask R-CNN: its size, the non-local network by hand, Equation 4, and that it learns a square."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.dice import Dice
from fedbrats.models.build import Resized
from fedbrats.models.networks.mask_rcnn import FLOOR, MaskRCNN, NonLocal, mask_rcnn
from fedbrats.personalization.heads import head_modules
from tests.models.network_checks import configured, count, parameters_with_two_names


def small(**settings: object) -> MaskRCNN:
    torch.manual_seed(0)
    sizes = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "pyramid": 16, "dense": 32, "attention": 8}
    less = {"block": "basic", "anchor_sizes": (8, 16, 32, 64), "proposals": 8, "boxes": 3}
    return mask_rcnn(**{**sizes, **less, **settings})


def test_size_is_the_sum_of_the_documented_layers() -> None:
    """ResNet-101 has 44,549,160 parameters (torchvision), of them 2,049,000 of its last layer and 9,408 of a first one
    with three inputs; MONAI's has biases in its four shortcuts."""
    resnet = 44_549_160 - 2_049_000 - 9_408 + 64 * 4 * 49 + (256 + 512 + 1024 + 2048)
    fpn = sum(width * 256 + 256 + 9 * 256 * 256 + 256 for width in (256, 512, 1024, 2048))
    rpn = 9 * 260 * 256 + 256 + 256 * 15 + 15
    head = 49 * 260 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 5 + 5
    mask = 9 * 260 * 256 + 3 * 9 * 256 * 256 + 4 * 256 + 4 * 256 * 256 + 256 + 256 + 1
    with torch.device("meta"):
        network, rules = configured("mask_rcnn")
    assert count(network) == resnet + fpn + rpn + head + mask + 4 * 20
    assert (rules["patch"], rules["resize"], network.choice.boxes) == ([192, 192], [256, 256], 8)


def test_the_non_local_network_by_hand() -> None:
    """Equation 2 with embeddings that are the image: weights of all pairs of pixels sum to their number in a row."""
    block, images = NonLocal(1, 2), torch.tensor([[[[0.0, 1.0], [2.0, 0.5]]]])
    with torch.no_grad():
        for layer in (block.theta, block.phi, block.g, block.f):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        found = block(images)
    x = images.flatten()
    weights = (x[:, None] * x).exp()
    torch.testing.assert_close(found.flatten(), 4 * (weights / weights.sum()) @ x)


def test_a_pixel_is_as_likely_as_its_mask_times_the_score_of_its_box() -> None:
    """Equation 4: masks that say 0.8 everywhere, boxes that score 0.9; beyond them next to nothing."""
    network, images = small(boxes=1).eval(), torch.randn(2, 4, 64, 96)
    with torch.no_grad():
        for layer, probability in ((network.mask[-1], 0.8), (network.head.score, 0.9)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, float(torch.logit(torch.tensor(probability))))
        found = network(images).sigmoid()
    inside = found > 0.5 * 0.72
    torch.testing.assert_close(found[found > 0.7], torch.full_like(found[found > 0.7], 0.72))
    for image in inside[:, 0]:
        rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
        assert image.sum() == len(rows) * len(columns) == image[rows[0] : rows[-1] + 1].sum() > 0  # one box
    assert found.min() == pytest.approx(FLOOR)


def test_it_finds_a_square_and_draws_it() -> None:
    network, generator = small(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    weights, losses = [0, 1], []
    for step in range(40):
        labels = torch.zeros(4, 64, 64, dtype=torch.uint8)
        for index in range(4):
            a, b = torch.randint(4, 36, (2,), generator=generator).tolist()
            labels[index, a : a + 20, b : b + 16] = 2
        images = torch.randn(4, 4, 64, 64, generator=generator) + 3 * (labels > 0).unsqueeze(1)
        value = deep_supervised(Dice(), network.train()(images), labels, weights).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        assert step or not any(
            p.grad is None for p in network.parameters()
        )  # each of them has something to learn
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    with torch.no_grad():
        found, truth = network.eval()(images)[:, 0] > 0, labels > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7


def test_the_loss_of_a_slice_is_its_own_and_the_same_again() -> None:
    network = small()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    images, labels = torch.randn(2, 4, 64, 64), torch.zeros(2, 64, 64, dtype=torch.uint8)
    labels[0, 10:30, 10:30] = labels[1, 40:50, 8:16] = 3
    with torch.no_grad():
        both, again = (network(images)[1](labels) for _ in range(2))
        alone = network(images[:1])[1](labels[:1])
    assert torch.equal(both, again)
    torch.testing.assert_close(both[:1], alone)


def test_resized_slices_have_labels_of_their_own_sides() -> None:
    network, labels = Resized(small(), [64, 64]), torch.zeros(1, 48, 48, dtype=torch.uint8)
    labels[0, 12:24, 12:24] = 1
    logits, loss = network(torch.randn(1, 4, 48, 48))
    assert logits.shape == (1, 1, 48, 48)
    assert loss(labels).shape == (1,)


def test_the_heads_of_the_output_are_those_of_score_and_mask() -> None:
    assert head_modules(small(), [64, 64]) == ("head.score", "mask.10")
    assert not parameters_with_two_names(small())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"block": "wide"}, r"model\.block=wide"),
        ({"layers": (1, 1, 1)}, r"model\.layers=\[1, 1, 1\].*four of each"),
        ({"anchor_sizes": (8, 16, 16, 32)}, r"model\.anchor_sizes=.*increasing"),
        ({"boxes": 0}, r"model\.boxes=0"),
        ({"gamma": 0.5}, r"model\.gamma=0\.5"),
        ({"prior": 1.0}, r"model\.prior=1\.0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**settings)


def test_sides_that_do_not_halve_are_named() -> None:
    with pytest.raises(ValueError, match=r"input sides \[64, 48\]: sides must be multiples of 32"):
        small()(torch.zeros(1, 4, 64, 48))


def test_the_small_configuration_builds() -> None:
    network, rules = configured("mask_rcnn", "small")
    assert count(network) < 1_000_000
    assert network.eval()(torch.zeros(2, 4, *rules["patch"])).shape == (2, 1, 64, 64)

"""A gradient gives its slice away, and with the noise of differential privacy it does not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbrats.audit.inversion import (
    PLAIN,
    SHOWN,
    Recovered,
    demonstrate,
    gradient,
    invert,
    pictures,
    private_gradient,
    sentence,
    similarity,
    small_network,
    total_variation,
    tumour_slice,
)
from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.entries import make_layout, write_entry
from fedbrats.privacy.mechanism import Batch, PrivateStep
from fedbrats.privacy.noise import secret_numbers
from tests.audit import planted


def slice_of(side: int = 24) -> Batch:
    """A round tumour with a rim in a head of two halves, the channels different."""
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    distance = np.hypot(x - 0.55 * side, y - 0.45 * side) / side
    labels = np.select([distance < 0.12, distance < 0.2, distance < 0.33], [1, 3, 2], 0).astype(np.uint8)
    shade = 0.6 * np.sin(x / 5) + 0.5 * (y > side / 2)
    images = np.stack(
        [
            shade,
            shade + 3 * (labels == 3) - (labels == 1),
            shade + 2 * (labels > 0),
            0.5 * shade + 2 * (labels == 2),
        ]
    )
    return torch.from_numpy(images[None].astype(np.float32)), torch.from_numpy(labels[None])


def demonstration(**changes: object) -> list[Recovered]:
    count = iter(range(100))
    settings = {"clip": 1.0, "sigma": 1.0, "iterations": 60} | changes
    return demonstrate(slice_of(), noise=lambda: secret_numbers(5, next(count)), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shown() -> list[Recovered]:
    return demonstration()


def test_the_slice_comes_back_without_privacy_and_not_with_it(shown: list[Recovered]) -> None:
    plain, little, private, nobody = shown
    assert (plain.title, plain.sigma) == (PLAIN, None)
    assert all(plain.similarity[channel]["correlation"] > 0.7 for channel in SHOWN)
    assert abs(private.correlation) < 0.35
    assert abs(nobody.correlation) < 0.35
    assert plain.correlation > little.correlation > private.correlation
    assert private.sigma == nobody.sigma == 1.0
    assert plain.similarity["flair"]["psnr"] > private.similarity["flair"]["psnr"] + 5


def test_the_demonstration_repeats() -> None:
    first, again, other = (demonstration(iterations=5, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again))
    assert not np.array_equal(first[0].image, other[0].image)


def test_a_mechanism_without_noise_would_be_seen() -> None:
    """The attack goes through the step that it is given: with no noise of its own, the slice comes back."""

    class Silent(PrivateStep):
        def add_noise(self, total: list[torch.Tensor]) -> None:
            pass

    images, labels = slice_of()
    network = small_network()
    options = {"clip": 1e-3, "sigma": 1.0, "noise": secret_numbers(1)}
    update = private_gradient(Silent, network, [(images, labels)], **options)  # type: ignore[arg-type]
    assert float(update.norm()) == pytest.approx(1e-3, rel=1e-4)  # clipping alone keeps the direction
    found = invert(network, update, labels, iterations=60, seed=0)
    assert similarity(images[0], found[0])["t1ce"]["correlation"] > 0.7


def test_private_gradient_is_the_step_of_production() -> None:
    images, labels = slice_of()
    network = small_network()
    noise = secret_numbers(1)
    update = private_gradient(PrivateStep, network, [(images, labels)], clip=1e6, sigma=0.0, noise=noise)
    torch.testing.assert_close(update, gradient(network, images, labels), rtol=1e-4, atol=1e-6)
    alone = private_gradient(PrivateStep, network, [], clip=2.0, sigma=3.0, noise=noise)
    assert float(alone.std()) == pytest.approx(6.0, rel=0.03)
    assert all(p.grad is None for p in network.parameters())
    doubled = private_gradient(planted.Halved, network, [(images, labels)], clip=1e6, sigma=0.0, noise=noise)
    torch.testing.assert_close(2 * doubled, update)


def test_total_variation_by_hand() -> None:
    assert total_variation(torch.ones(1, 4, 5, 5)) == 0
    ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    assert total_variation(ramp) == 1
    assert total_variation(-ramp.transpose(2, 3)) == 1


def test_networks_are_those_of_the_seed_and_leave_chance_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = small_network(1), small_network(1), small_network(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_similarity_by_hand() -> None:
    original = torch.zeros(4, 16, 16)
    original[:, :8] = 2.0
    found = original.clone()
    found[1] += 0.2
    found[2] *= -1
    found[3] = 1.0
    figures = similarity(original, found)
    assert figures["t1"]["psnr"] == math.inf
    assert figures["t1"]["ssim"] == pytest.approx(1.0)
    assert figures["t1ce"]["correlation"] == pytest.approx(1.0)
    assert figures["t1ce"]["psnr"] == pytest.approx(20.0, abs=1e-4)  # 10 log10(2^2 / 0.2^2)
    assert figures["t2"]["correlation"] == pytest.approx(-1.0)
    assert figures["flair"]["correlation"] == 0.0  # nothing is known of a constant
    assert figures["flair"]["psnr"] == pytest.approx(10 * math.log10(4))


def test_pictures_show_both_channels_in_one_window(shown: list[Recovered]) -> None:
    slice_ = slice_of()
    made = pictures(slice_, shown)
    assert [title for title, _ in made] == ["Original", *(r.title for r in shown)]
    assert all(grey.dtype == np.uint8 and grey.shape == (4 * 24, 2 * 4 * 24) for _, grey in made)
    images = slice_[0][0].numpy()
    t1ce = images[MODALITIES.index("t1ce")]
    left = made[0][1][::4, : 4 * 24 : 4].astype(float)
    # Front (largest y) is up, the patient's right (largest x) on the left.
    seen = t1ce[::-1].T[::-1]
    assert np.corrcoef(left.ravel(), seen.ravel())[0, 1] > 0.98
    lighter = Recovered(title="", sigma=None, image=images + 1.0, similarity={})
    assert pictures(slice_, [lighter])[1][1].mean() > made[0][1].mean() + 20


def test_the_sentence_says_what_was_measured(shown: list[Recovered]) -> None:
    said = sentence(shown)
    assert all(f"{r.correlation:.2f}" in said for r in (shown[0], shown[2], shown[3]))
    assert "t1ce and flair" in said


def _case(folder: Path, shape: tuple[int, int, int], tumour: tuple[slice, slice, slice] | None) -> CachedCase:
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    if tumour:
        labels[tumour] = 2
    arrays = {
        "image.npy": rng.random((4, *shape)).astype(np.float16),
        "label.npy": labels,
        "tumour.npy": np.argwhere(labels).astype(np.int16),
    }
    make_layout(folder.parent)
    write_entry(folder, arrays, {"labels": [2]}, folder.parent)
    return CachedCase("case", folder)


def test_the_slice_is_cut_around_the_tumour(tmp_path: Path) -> None:
    tumour = (slice(30, 60), slice(2, 8), slice(5, 7))
    case = _case(tmp_path / "case", (90, 80, 12), tumour)
    images, labels = tumour_slice(case)
    assert images.shape == (1, 4, 45, 32)  # 1.5 times 30, and the smallest side
    assert labels.shape == (1, 45, 32)
    assert int((labels == 2).sum()) == 30 * 6
    # The middle of the tumour, x = 45, is in the middle: the window begins at 45 - 22; y begins at the border.
    torch.testing.assert_close(images[0], torch.from_numpy(case.image[:, 23:68, 0:32, 5].astype(np.float32)))
    brighter = tumour_slice(case, lambda case, values: values + 1)[0]
    torch.testing.assert_close(brighter, images + 1)


def test_a_small_volume_is_taken_whole_and_a_large_tumour_in_part(tmp_path: Path) -> None:
    small = _case(tmp_path / "small", (20, 24, 6), (slice(3, 8), slice(3, 8), slice(2, 3)))
    assert tumour_slice(small)[0].shape == (1, 4, 20, 24)
    large = _case(tmp_path / "large", (100, 90, 6), (slice(10, 90), slice(10, 80), slice(2, 3)))
    assert tumour_slice(large)[0].shape == (1, 4, 48, 48)
    with pytest.raises(ValueError, match="no tumour"):
        tumour_slice(_case(tmp_path / "none", (20, 20, 6), None))

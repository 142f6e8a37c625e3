"""The augmentation of HarDNet-BTS: how often and how much, image and label turned alike."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbrats.data.augmentation import channel_drop as module
from fedbrats.data.augmentation.channel_drop import channel_drop
from tests.data.augment_batches import brain_batch, marked_batch


def state(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise and without scaling."""
    monkeypatch.setattr(module, "NOISE", 0.0)
    monkeypatch.setattr(module, "SCALES", (1.0, 1.0))


def share_within(count: int, of: int, probability: float) -> bool:
    return abs(count / of - probability) < 4 * (probability * (1 - probability) / of) ** 0.5


@pytest.mark.usefixtures("quiet")
def test_half_are_changed_and_a_sixth_of_these_lose_one_modality() -> None:
    images, labels = marked_batch(600, (4, 5, 6))
    found, new_labels = channel_drop(images, labels, state())
    changed = [not torch.equal(a, b) for a, b in zip(new_labels, labels)]
    assert share_within(sum(changed), 600, 0.5)
    empty = (found.flatten(2) == 0).all(2)  # [sample, modality]
    assert set(empty.sum(1).tolist()) == {0, 1}
    assert share_within(int(empty.sum()), sum(changed), 0.16)
    assert empty.any(0).all()  # each of the four in turn
    kept = found[~empty]  # image and label tell the same
    expected = (new_labels[:, None] * 10.0).expand(-1, 4, -1, -1, -1)[~empty]
    assert torch.equal(kept, expected)


@pytest.mark.usefixtures("quiet")
def test_axes_of_one_length_change_places_and_one_is_mirrored() -> None:
    images, labels = marked_batch(400, (5, 5, 6))
    _, new = channel_drop(images, labels, state())
    swapped = labels[0].transpose(0, 1)
    expected = {swapped.flip([axis]).numpy().tobytes() for axis in range(3)}
    assert {label.contiguous().numpy().tobytes() for label in new} == expected | {labels[0].numpy().tobytes()}


def test_intensities_are_scaled_by_a_tenth_and_noisy_by_a_tenth_of_their_spread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DROPPED", 0.0)
    monkeypatch.setattr(module, "_turned", lambda image, label, _: (image, label))
    images, labels = brain_batch(60, (12, 11, 10))
    images[:, 1] *= 5
    found, _ = channel_drop(images, labels, state())
    assert torch.equal(found == 0, images == 0)  # background, and nothing else, is 0
    factors, noise = [], []

    def line(a: Tensor, b: Tensor) -> tuple[float, float]:
        factor = float((a * b).sum() / (b * b).sum())
        return factor, float((a - factor * b).std() / b.std())

    for new, old in zip(found, images):
        if torch.equal(new, old):
            continue
        for channel in range(4):
            inside = old[channel] != 0
            factor, rest = line(new[channel][inside], old[channel][inside])
            factors.append(factor)
            noise.append(rest / factor)
    assert 0.87 < min(factors) < 0.93
    assert 1.07 < max(factors) < 1.13
    assert np.allclose(noise, 0.1, atol=0.02)  # of each modality's own spread


@pytest.mark.usefixtures("quiet")
def test_the_only_modality_of_a_site_is_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DROPPED", 1.0)
    images, labels = marked_batch(100, (4, 5, 6))
    images[:, [0, 1, 3]] = 0
    found, _ = channel_drop(images, labels, state())
    assert found[:, 2].flatten(1).any(1).all()
    images[:, 3] = images[:, 2]  # of two, one or the other
    found, new_labels = channel_drop(images, labels, state())
    changed = [not torch.equal(a, b) for a, b in zip(new_labels, labels)]
    left = found.flatten(2).any(2)[:, 2:]
    assert left[changed].sum(1).tolist() == [1] * sum(changed)
    assert left[changed].any(0).all()

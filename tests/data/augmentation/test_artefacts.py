"""Artefacts of a scan: how often each, how much, and nothing outside the brain."""

import numpy as np
import pytest
import torch

from fedbrats.data.augmentation import artefacts as module
from fedbrats.data.augmentation.artefacts import artefacts

ALL = ("P_THICK", "P_BLUR", "P_NOISE", "P_BIAS")


def only(monkeypatch: pytest.MonkeyPatch, name: str | None, always: bool = False) -> None:
    for other in ALL:
        if other != name:
            monkeypatch.setattr(module, other, 0.0)
        elif always:
            monkeypatch.setattr(module, other, 1.0)


def noise(samples: int, sides: tuple[int, ...] = (16, 15, 14)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(samples, 4, *sides, generator=generator)
    images[:, :, :2] = 0
    return images, torch.ones((samples, *sides), dtype=torch.uint8)


@pytest.mark.parametrize(("name", "probability"), [(n, 0.3 if n == "P_BIAS" else 0.25) for n in ALL])
def test_each_is_as_likely_as_printed(monkeypatch: pytest.MonkeyPatch, name: str, probability: float) -> None:
    only(monkeypatch, name)
    images, labels = noise(300, (6, 5, 4))
    found, new_labels = artefacts(images, labels, np.random.RandomState(0))
    changed = (found != images).flatten(1).any(1).float().mean()
    assert abs(changed - probability) < 4 * (probability * (1 - probability) / 300) ** 0.5
    assert not found[:, :, :2].any()  # background
    assert torch.equal(labels, new_labels)


def test_thick_slices_are_coarse_along_one_axis_only(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "P_THICK", always=True)
    images, labels = noise(30, (24, 24, 24))
    images[:, :, :2] = 1e-3
    found, _ = artefacts(images, labels, np.random.RandomState(0))

    def rough(image: torch.Tensor) -> torch.Tensor:
        """Second difference along each axis; linear stretches have none."""
        return torch.stack([image.diff(n=2, dim=axis).abs().mean() for axis in (1, 2, 3)])

    ratios = torch.stack([rough(new) / rough(old) for new, old in zip(found, images)])
    lowest = ratios.argmin(1)
    assert set(lowest.tolist()) == {0, 1, 2}
    assert (ratios.min(1).values < 0.75).all()
    assert (ratios.sort(1).values[:, 0] < 0.8 * ratios.sort(1).values[:, 1]).all()


def test_noise_has_up_to_a_quarter_of_a_standard_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "P_NOISE", always=True)
    images, labels = noise(60)
    found, _ = artefacts(images, labels, np.random.RandomState(0))
    spreads = [float((new - old)[:, 2:].std()) for new, old in zip(found, images)]
    assert 0 <= min(spreads) < 0.05
    assert 0.2 < max(spreads) < 0.26


def test_a_bias_field_is_a_positive_factor_that_all_modalities_share(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "P_BIAS", always=True)
    images, labels = noise(5)
    found, _ = artefacts(images, labels, np.random.RandomState(0))
    factors = (found / images)[:, :, 2:]
    assert (factors > 0).all()
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-4, atol=1e-4)
    assert factors.flatten(1).std(1).min() > 0.01


def test_blur_takes_the_contrast_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "P_BLUR", always=True)
    images, labels = noise(10)
    found, _ = artefacts(images, labels, np.random.RandomState(0))
    assert all(new[:, 2:].std() < old[:, 2:].std() for new, old in zip(found, images))

"""Each of four changes in a fifth of the samples, on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbrats.data.augment import augment
from fedbrats.data.augmentation import fifths as module
from tests.data.augment_batches import marked_batch


def test_shares_of_zoom_rotation_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[bool, bool, float]] = []

    def spy(image, both, angles, zoom):
        made.append((angles is not None, zoom != 1.0, zoom))
        assert angles is None or (len(angles) == 3 and max(map(abs, angles)) <= np.pi / 6)
        return image, both

    monkeypatch.setattr(module, "rotated_and_zoomed", spy)
    images, labels = marked_batch(1000)
    _, found = augment(images, labels, np.random.default_rng(0), "fifths")
    assert len(made) / 1000 == pytest.approx(1 - 0.8**2, abs=0.06)  # four standard deviations
    assert np.mean([rotated and zoomed for rotated, zoomed, _ in made]) == pytest.approx(
        0.04 / 0.36, abs=0.07
    )
    zooms = [zoom for _, zoomed, zoom in made if zoomed]
    assert 0.7 <= min(zooms) < 0.72
    assert 1.38 < max(zooms) <= 1.4
    shares = [np.mean([bool(torch.equal(one, labels[0].flip(axis))) for one in found]) for axis in range(3)]
    assert shares == pytest.approx([0.2 / 3] * 3, abs=0.035)
    assert np.mean([bool(torch.equal(one, labels[0])) for one in found]) == pytest.approx(0.8, abs=0.05)


def test_contrast_only_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rotated_and_zoomed", lambda image, both, *_: (image, both))
    images = torch.randn(300, 4, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(300, 6, 6, 6, dtype=torch.uint8)
    found, _ = augment(images, labels, np.random.default_rng(0), "fifths")
    before, after = (x.flatten(2).std(2) for x in (images, found))
    factor = after / before
    changed = (factor - 1).abs().amax(1) > 1e-4
    assert float(changed.float().mean()) == pytest.approx(0.2, abs=0.1)
    assert float(factor.min()) > 1 - 1e-4
    assert 1.2 < float(factor.max()) < 1.5  # the range is kept, so the tails are cut

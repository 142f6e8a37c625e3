"""nnU-Net's augmentation: its published numbers, and each step worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from fedbrats.data import augment as module
from fedbrats.data.augment import augment
from tests.data.augment_batches import Spy, brain_batch


def test_probabilities_and_ranges_of_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["Affine", "RandGaussianNoise", "GaussianSmooth", "ScaleIntensityFixedMean", "AdjustContrast"]
    spies = {name: Spy(monkeypatch, name) for name in names}
    images, labels = brain_batch(1200, (6, 6, 6))
    augment(images, labels, np.random.default_rng(0), "nnunet")

    def rate(found: int, expected: float, variance: float) -> None:
        assert abs(found / 1200 - expected) < 4 * (variance / 1200) ** 0.5, (found / 1200, expected)

    moves = [kwargs for _, _, kwargs in spies["Affine"].made[::2]]  # then the label, by the same
    assert [kwargs for _, _, kwargs in spies["Affine"].made[1::2]] == [m | {"mode": "nearest"} for m in moves]
    angles = np.array([m["rotate_params"] for m in moves if m["rotate_params"] is not None])
    zooms = 1 / np.array([m["scale_params"][0] for m in moves if m["scale_params"][0] != 1])
    for m in moves:
        assert len(set(m["scale_params"])) == 1
    rate(len(angles), 0.2, 0.16)
    rate(len(zooms), 0.2, 0.16)
    rate(len(moves), 0.36, 0.23)
    assert 0.95 * np.pi / 6 < np.abs(angles).max() <= np.pi / 6
    assert 0.7 <= zooms.min() < 0.73
    assert 1.36 < zooms.max() <= 1.4
    deviations = np.array([kwargs["std"] for _, _, kwargs in spies["RandGaussianNoise"].made])
    rate(len(deviations), 0.15, 0.13)
    assert 0.09 < (deviations**2).max() <= 0.1
    assert abs((deviations**2).mean() - 0.05) < 0.01  # the variance is uniform, not the deviation
    for name, per_sample, variance, low, high in (
        ("GaussianSmooth", 0.2 * 0.5 * 4, 0.84, 0.5, 1.5),
        ("ScaleIntensityFixedMean", 0.15 * 4, 2.04, 0.65 - 1, 1.5 - 1),
        ("AdjustContrast", 2 * 0.15 * 4, 4.08, 0.7, 1.5),
    ):
        values = np.array([args[0] for _, args, _ in spies[name].made])
        rate(len(values), per_sample, variance)
        edge = 0.05 * (high - low)
        assert low <= values.min() < low + edge
        assert high - edge < values.max() <= high
    inverted = [kwargs["invert_image"] for _, _, kwargs in spies["AdjustContrast"].made]
    assert 0.35 < np.mean(inverted) < 0.65


class Script(np.random.RandomState):
    """Gives the given numbers in turn, whatever is asked for."""

    def __init__(self, *values: Any) -> None:
        super().__init__(0)
        self.values = list(values)

    def uniform(self, *args: Any, **kwargs: Any) -> Any:
        return self.values.pop(0)


def test_rotation_turns_image_and_label_about_the_middle() -> None:
    image, label = torch.arange(4 * 49.0).reshape(4, 7, 7), torch.arange(49).reshape(1, 7, 7).to(torch.uint8)
    quarter = Script(0, 1, np.array([np.pi / 2]))  # rotation yes, zoom no
    new_image, new_label = module._moved(image, label, quarter)
    turn = next(k for k in (1, -1) if torch.equal(label.rot90(k, (1, 2)), new_label))
    torch.testing.assert_close(new_image, image.rot90(turn, (1, 2)), atol=1e-3, rtol=0)
    cube = torch.arange(125).reshape(1, 5, 5, 5).to(torch.uint8)
    turned = module._moved(cube.float(), cube, Script(0, 1, np.array([np.pi / 2, 0, 0])))
    assert any(torch.equal(cube.rot90(k, (2, 3)), turned[1]) for k in (1, -1))  # about X
    torch.testing.assert_close(turned[0], turned[1].float(), atol=1e-3, rtol=0)


def test_zoom_above_1_enlarges_and_what_comes_in_is_background() -> None:
    label = torch.zeros((1, 16, 16), dtype=torch.uint8)
    label[:, 6:10, 6:10] = 3
    image = label + 1.0
    larger, large = module._moved(image, label, Script(1, 0, 2.0))
    assert large[0, 4:12, 4:12].eq(3).all()
    assert large.sum() == 3 * 64
    assert (larger - large).sub(1).abs().max() <= 1.5 + 1e-5  # linear at the edge, half a step of 3
    smaller, small = module._moved(image, label, Script(1, 0, 0.5))
    assert small.sum() == 3 * 4
    assert not smaller[:, :3].any()
    assert not smaller[:, :, -3:].any()


def test_oblong_slices_are_turned_less(monkeypatch: pytest.MonkeyPatch) -> None:
    for sides, limit in (((12, 8), np.pi), ((13, 8), np.pi / 12)):
        spy = Spy(monkeypatch, "Affine")
        augment(*brain_batch(500, sides), np.random.default_rng(0), "nnunet")
        turns = [kwargs["rotate_params"] for _, _, kwargs in spy.made if kwargs["rotate_params"]]
        assert all(len(angles) == 1 for angles in turns)
        assert 0.9 * limit < np.abs(turns).max() <= limit


def test_intensity_steps_of_nnunet_by_hand() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(4, 6, 6))).float()
    off = [1.0] * 7  # noise, blur, brightness, contrast, low resolution, inverted gamma, gamma

    def with_step(place: int, *draws: float) -> torch.Tensor:
        script = off.copy()
        script[place : place + 1] = [0.0, *draws]
        return module._intensities(image, Script(*script))

    assert torch.equal(module._intensities(image, Script(*off)), image)
    brighter = with_step(2, 0, 1.3, 0, 0.7, 0, 1.0, 0, 1.1)  # yes and the factor, for each modality
    torch.testing.assert_close(brighter, image * torch.tensor([1.3, 0.7, 1.0, 1.1]).reshape(4, 1, 1))
    flatter = with_step(3, *[0, 0.65] * 4)
    means = image.mean((1, 2), keepdim=True)
    torch.testing.assert_close(flatter, means + 0.65 * (image - means))
    steeper = with_step(3, *[0, 1.5] * 4)
    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    torch.testing.assert_close(steeper, (means + 1.5 * (image - means)).clamp(low, high))
    unit = (image - low) / (high - low)
    torch.testing.assert_close(with_step(6, *[0, 1.5] * 4), low + unit**1.5 * (high - low))
    torch.testing.assert_close(with_step(5, *[0, 0.7] * 4), low + (1 - (1 - unit) ** 0.7) * (high - low))
    blurred = with_step(1, 0, 1.0, 0.9, 0.9, 0.9)  # the first modality only
    assert torch.equal(blurred[1:], image[1:])
    assert blurred[0].std() < 0.5 * image[0].std()
    coarse = with_step(4, 0.9, 0.9, 0, 0.5, 0.9)  # the third, at half the resolution
    assert torch.equal(coarse[[0, 1, 3]], image[[0, 1, 3]])
    nearest = image[2, ::2, ::2]  # torch's nearest neighbour takes the first of two
    expected = torch.nn.functional.interpolate(nearest[None, None], (6, 6), mode="bicubic")[0, 0]
    torch.testing.assert_close(coarse[2], expected)


def test_background_of_nnunet_is_what_lies_outside_the_moved_brain() -> None:
    images, labels = brain_batch(300, (12, 12))
    labels = (images[:, 0] != 0).to(torch.uint8)  # the brain mask itself
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "nnunet")
    outside = (new_labels == 0)[:, None].expand_as(new_images)
    assert not new_images[outside].any()
    assert (new_images[~outside] != 0).float().mean() > 0.99
    assert len({int(label.sum()) for label in new_labels}) > 5  # zoomed

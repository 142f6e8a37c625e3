"""Augmentation: image and label move together, the published numbers hold, the seed alone decides."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbrats.data.augment import RECIPES, augment
from fedbrats.data.augmentation import AUGMENTS
from tests.data.augment_batches import Spy, brain_batch, marked_batch

SIDES = [(4, 5, 6), (5, 6)]
CHANGING = [name for name in RECIPES if name != "none"]
CHANGING_NO_BACKGROUND = (
    *("flips", "light", "noise", "masks", "mining", "turns", "axes", "quarters"),
    *("brightness", "brightness_noise"),
)


def mirrored(label: Tensor) -> set[bytes]:
    axes = range(label.ndim)
    return {
        np.flip(label.numpy(), tuple(axis for axis in axes if bits >> axis & 1)).tobytes()
        for bits in range(2**label.ndim)
    }


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("recipe", ["flips", "light"])
def test_image_and_label_are_flipped_together_over_all_axes(recipe: str, sides: tuple[int, ...]) -> None:
    images, labels = marked_batch(64, sides)
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), recipe)
    assert new_images.shape == images.shape
    assert new_images.dtype == torch.float32
    assert new_labels.dtype == torch.uint8
    assert type(new_images) is torch.Tensor
    assert {label.numpy().tobytes() for label in new_labels} == mirrored(labels[0])
    for channel in range(4):
        assert torch.equal(torch.round(new_images[:, channel] / 10).to(torch.uint8), new_labels)


def test_flips_mirror_half_of_the_samples_and_leave_intensities_alone() -> None:
    images, labels = marked_batch(400, (5, 6))
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "flips")
    assert torch.equal(new_images, (new_labels[:, None] * 10.0).expand_as(new_images))
    for axes in ([0], [1]):
        expected = (labels[0], labels[0].flip(axes), labels[0].flip([1 - axes[0]]), labels[0].flip([0, 1]))
        share = sum(bool(torch.equal(x, e)) for x in new_labels for e in (expected[1], expected[3])) / 400
        assert abs(share - 0.5) < 0.1  # four standard deviations


def test_intensities_are_scaled_and_shifted_by_modality_and_background_stays_zero() -> None:
    images, labels = marked_batch(200)
    new_images, new_labels = augment(images, labels, np.random.default_rng(0))
    assert not new_images[(new_labels == 0)[:, None].expand_as(new_images)].any()
    values = [
        torch.stack([image[:, label == k][:, 0] for image, label in zip(new_images, new_labels)])
        for k in (1, 2)
    ]
    factor = (values[1] - values[0]) / 10  # [200, 4]
    offset = values[0] - 10 * factor
    for drawn, centre in ((factor, 1.0), (offset, 0.0)):
        assert (drawn - centre).abs().max() <= 0.1 + 1e-5
        assert abs(drawn.mean() - centre) < 0.01
        assert abs(drawn.std() - 0.2 / 12**0.5) < 0.005  # of the uniform distribution
        assert (drawn[:, 0] - drawn[:, 1]).abs().max() > 0.1  # modalities on their own


def test_brightness_scales_by_a_half_to_one_and_shifts_by_a_twentieth() -> None:
    """EMSViT, section 3.6: shift between -0.05 and 0.05, scale between 0.5 and 1.0."""
    images, labels = marked_batch(300)
    new_images, new_labels = augment(images, labels, np.random.default_rng(0), "brightness")
    low, high = (
        torch.stack([image[:, label == k][:, 0] for image, label in zip(new_images, new_labels)])
        for k in (1, 2)
    )
    factor = (high - low) / 10
    assert 0.5 - 1e-5 <= float(factor.min()) < 0.505
    assert 0.995 < float(factor.max()) <= 1 + 1e-5
    offset = low - 10 * factor
    assert 0.049 < float(offset.abs().max()) <= 0.05 + 1e-4


def test_brightness_noise_flips_three_in_ten_and_adds_noise_of_up_to_three_tenths() -> None:
    """DiNTS, section 2.2: each axis with probability 0.3, standard deviation up to 0.3, scale and shift up to 0.1."""
    sides = (20, 21)
    labels = torch.zeros((400, *sides), dtype=torch.uint8)
    labels[:, 2:6, 3:8] = 1
    new_images, new_labels = augment(
        torch.ones(400, 4, *sides), labels, np.random.default_rng(0), "brightness_noise"
    )
    shares = [
        float((new_labels == labels.flip(a)).all((1, 2)).float().mean()) for a in ([], [1], [2], [1, 2])
    ]
    assert shares == pytest.approx([0.49, 0.21, 0.21, 0.09], abs=0.1)  # four standard deviations
    found = new_images.std((2, 3))  # of what was constant
    assert 0.27 < float(found.max()) < 0.33
    assert abs(float(found.mean()) - 0.15) < 0.02
    assert float((found.amax(1) - found.amin(1)).mean()) < 0.02  # one deviation for all modalities
    assert 0.16 < float((new_images.mean((2, 3)) - 1).abs().max()) < 0.23  # 0.1 by scale and 0.1 by shift


def test_light_takes_its_random_numbers_in_the_order_it_always_did() -> None:
    images, labels = marked_batch(3)
    new_images, _ = augment(images, labels, np.random.default_rng(4))
    state = np.random.RandomState(int(np.random.default_rng(4).integers(2**32)))
    for index in range(3):
        axes = [axis for axis in (1, 2, 3) if state.rand() < 0.5]
        state.rand()
        factor = torch.from_numpy(1 + state.uniform(-0.1, 0.1, 4)).reshape(4, 1, 1, 1)
        state.rand()
        offset = torch.from_numpy(state.uniform(-0.1, 0.1, 4)).reshape(4, 1, 1, 1)
        moved = images[index].flip(axes)
        expected = torch.where(moved == 0, 0, moved * factor + offset)
        torch.testing.assert_close(new_images[index], expected.float())


def test_none_returns_the_inputs_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    images, labels = marked_batch(2)
    new_images, new_labels = augment(images, labels, rng, "none")
    assert new_images is images
    assert new_labels is labels
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_a_configuration_may_name_just_the_recipes_that_there_are() -> None:
    assert tuple(RECIPES) == AUGMENTS


def test_unknown_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match=f"augment=heavy: choose one of {', '.join(AUGMENTS)}"):
        augment(*marked_batch(1), np.random.default_rng(0), "heavy")


@pytest.mark.parametrize("sides", [(12, 11, 10), (14, 12)])
@pytest.mark.parametrize("recipe", CHANGING)
def test_every_recipe_depends_on_the_seed_only_and_leaves_its_input_alone(
    recipe: str, sides: tuple[int, ...]
) -> None:
    images, labels = brain_batch(6, sides)
    kept = images.clone(), labels.clone()

    def draw(seed: int) -> list[Tensor]:
        rng = np.random.default_rng(seed)
        return [x for _ in range(4) for x in augment(images, labels, rng, recipe)]

    first = draw(5)
    np.random.seed(0)  # noqa: NPY002 - global states must not matter
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(draw(5), first, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(draw(6), first, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first[:2], first[2:4], strict=True))
    for image, label in zip(first[::2], first[1::2], strict=True):
        image.fill_(7)  # results do not share memory with the input
        label.fill_(7)
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


@pytest.mark.parametrize("sides", [(12, 11, 10), (14, 12)])
@pytest.mark.parametrize("recipe", CHANGING)
def test_every_recipe_returns_finite_images_and_valid_labels(recipe: str, sides: tuple[int, ...]) -> None:
    images, labels = brain_batch(40, sides)
    labels[labels == 2] = 0  # 2 lies between 1 and 3, where interpolation would put it
    images[0, 1], images[1] = 0, 0  # a modality and a sample of nothing but background
    rng = np.random.default_rng(0)
    for _ in range(3):
        new_images, new_labels = augment(images, labels, rng, recipe)
        assert (new_images.shape, new_images.dtype) == (images.shape, torch.float32)
        assert (new_labels.shape, new_labels.dtype) == (labels.shape, torch.uint8)
        assert new_images.isfinite().all()
        assert set(new_labels.unique().tolist()) == {0, 1, 3}
        if recipe == "masks":
            assert new_labels.flatten().bincount().tolist() == labels.flatten().bincount().tolist()


@pytest.mark.parametrize("sides", [(12, 11, 10), (14, 12)])
@pytest.mark.parametrize("recipe", CHANGING_NO_BACKGROUND)
def test_background_stays_zero(recipe: str, sides: tuple[int, ...]) -> None:
    images, labels = brain_batch(8, sides)
    rng = np.random.default_rng(0)
    for _ in range(20):
        new_images, _ = augment(images, labels, rng, recipe)
        border = torch.ones(sides, dtype=torch.bool)
        border[tuple(slice(2, side - 2) for side in sides)] = False
        assert not new_images[..., border].any()
        inner = new_images[..., ~border]
        assert inner.all() or recipe in ("masks", "mining")


@pytest.mark.parametrize("sides", [(20, 20, 20), (40, 30)])
def test_masks_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch, sides: tuple[int, ...]) -> None:
    spy = Spy(monkeypatch, "RandCoarseDropout")
    images, labels = marked_batch(2, sides)
    images += 1  # brain everywhere
    rng = np.random.default_rng(0)
    flips = np.zeros(len(sides), int)
    boxes, masked, noisy, noise = [], 0, 0, []
    for _ in range(400):
        new_images, new_labels = augment(images, labels, rng, "masks")
        assert torch.equal(new_labels[0], new_labels[1])  # one draw for the batch
        axes = next(a for a in ([], [0], [1], [0, 1]) if torch.equal(labels[0].flip(a), new_labels[0]))
        flips[axes] += 1
        difference = new_images - images.flip([axis + 2 for axis in axes])
        transform = spy.made[-1][0]
        hidden = torch.zeros(sides, dtype=torch.bool)
        if transform._do_transform:
            masked += 1
            boxes.append([hole[1:] for hole in transform.hole_coords])
            for hole in boxes[-1]:
                hidden[hole] = True
        rest = difference[..., ~hidden]
        if rest.any():
            noisy += 1
            noise.append(rest.flatten())
            assert not torch.equal(difference[0], difference[1])
            assert new_images[..., hidden].all()  # noise is added to what is masked, too
            assert new_images[..., hidden].abs().mean() < 0.5 or not hidden.any()
        else:
            assert not new_images[..., hidden].any()
    for count, probability in ((flips[0], 0.25), (flips[1], 0.25), (masked, 0.4), (noisy, 0.25)):
        assert abs(count / 400 - probability) < 4 * (probability * (1 - probability) / 400) ** 0.5
    assert not flips[2:].any()
    assert {len(holes) for holes in boxes} == {1, 2, 3, 4, 5, 6}
    shares = [
        np.prod([(edge.stop - edge.start) / side for edge, side in zip(hole, sides)])
        for holes in boxes
        for hole in holes
    ]
    assert 0.1 < max(shares) <= 0.2
    values = torch.cat(noise)
    assert abs(values.mean() - 0.05) < 0.01
    assert abs(values.var() - 0.1) < 0.01

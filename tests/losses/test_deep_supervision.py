"""Weights of the outputs and the labels each is compared with."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from fedbrats.losses.compound import DiceCE
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.tasks.segmentation import targets
from tests.losses.samples import sample

LABELS = torch.randint(0, 4, (2, 8, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def outputs(*sides: int, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, s, s, s, generator=generator) for s in sides]


def first_value(logits: Tensor, target: Tensor) -> Tensor:
    """A loss whose value is that of the first voxel, so that weights can be read off."""
    return logits[:, 0, 0, 0, 0]


def marked(*values: float) -> list[Tensor]:
    return [torch.full((2, 3, 8 >> i, 8 >> i, 8 >> i), v) for i, v in enumerate(values)]


def test_one_output_has_the_plain_loss() -> None:
    logits = outputs(8)[0]
    expected = DiceCE()(logits, targets(LABELS, 3))
    torch.testing.assert_close(deep_supervised(DiceCE(), logits, LABELS), expected)
    torch.testing.assert_close(deep_supervised(DiceCE(), [logits], LABELS, [3.0]), expected)


def test_weights_halve_and_sum_to_one() -> None:
    """1, 1/2, 1/4 are 4/7, 2/7, 1/7."""
    value = deep_supervised(first_value, marked(7, 70, 700), LABELS)
    assert value.tolist() == pytest.approx([4 + 20 + 100] * 2)


def test_given_weights_are_scaled_to_one_and_zero_leaves_out() -> None:
    assert deep_supervised(first_value, marked(10, 20, 30), LABELS, [2, 1, 1]).tolist() == pytest.approx(
        [17.5] * 2
    )
    nan = float("nan")
    assert deep_supervised(first_value, marked(10, 20, nan), LABELS, [1, 1, 0]).tolist() == pytest.approx(
        [15] * 2
    )


def test_a_function_of_the_labels_is_a_term() -> None:
    def tumour(labels: Tensor) -> Tensor:
        return (labels > 0).flatten(1).sum(1)

    found = deep_supervised(first_value, [*marked(10), tumour], LABELS, [3, 1])
    assert found.tolist() == pytest.approx([(30 + count) / 4 for count in tumour(LABELS).tolist()])
    with pytest.raises(ValueError, match=r"a term of its own of shape \(\) for 2 samples"):
        deep_supervised(first_value, [*marked(10), lambda labels: tumour(labels).sum()], LABELS, [3, 1])


def test_labels_are_strided_at_half_the_size() -> None:
    seen: list[Tensor] = []

    def remember(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return logits.flatten(1).mean(1)

    deep_supervised(remember, outputs(8, 4, 2), LABELS)
    for target, step in zip(seen, (1, 2, 4), strict=True):
        torch.testing.assert_close(target, targets(LABELS[:, ::step, ::step, ::step], 3).float())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sides_that_do_not_divide_take_the_nearest_label(channels: int) -> None:
    """Five of eight voxels: positions 0, 1.6, 3.2, 4.8, 6.4 rounded down."""
    logits, index = outputs(5, channels=channels)[0], torch.tensor([0, 1, 3, 4, 6])
    small = LABELS[:, index][:, :, index][:, :, :, index]
    expected = DiceCE()(logits, targets(small, channels))
    torch.testing.assert_close(deep_supervised(DiceCE(), logits, LABELS), expected)


def test_slices_too() -> None:
    logits, _ = sample(4, (6, 4), batch=2)
    labels = LABELS[:, :6, :4, 0]
    small = logits[:, :, ::2, ::2]
    expected = 2 / 3 * DiceCE()(logits, targets(labels, 4))
    expected += 1 / 3 * DiceCE()(small, targets(labels[:, ::2, ::2], 4))
    torch.testing.assert_close(deep_supervised(DiceCE(), [logits, small], labels), expected)


def test_logits_of_half_precision_become_float32() -> None:
    value = deep_supervised(DiceCE(), [x.bfloat16() for x in outputs(8, 4)], LABELS)
    assert value.dtype == torch.float32
    types: list[torch.dtype] = []
    deep_supervised(lambda x, t: (types.append(x.dtype), x.mean())[1], outputs(8)[0].bfloat16(), LABELS)
    assert types == [torch.float32]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_do_not_fit_are_named(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^train\.deep_supervision=.*2 weights"):
        deep_supervised(DiceCE(), outputs(8, 4), LABELS, weights)


def test_a_loss_of_monai_gives_a_scalar_and_no_map() -> None:
    logits = outputs(8, 4)
    plain = DiceLoss(sigmoid=True)
    expected = 2 / 3 * plain(logits[0], targets(LABELS, 3).float())
    expected += 1 / 3 * plain(logits[1], targets(LABELS[:, ::2, ::2, ::2], 3).float())
    torch.testing.assert_close(deep_supervised(plain, logits, LABELS), expected)
    with pytest.raises(ValueError, match=r"one value per sample.*reduction: mean"):
        deep_supervised(DiceLoss(sigmoid=True, reduction="none"), logits, LABELS)


def test_what_a_network_adds_by_itself_is_taken_as_it_is() -> None:
    """Weights 1, 0.1 and 0.3 over 1.4; the loss sees the logits alone."""
    seen = []

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(logits.shape))
        return logits.flatten(1).mean(1)

    labels = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    terms = [torch.tensor([5.0, 6.0]), torch.tensor([0.5, -1.0])]
    found = deep_supervised(loss, [torch.full((2, 3, 4, 4, 4), 7.0), *terms], labels, [1, 0.1, 0.3])
    expected = [(7 + 0.5 + 0.15) / 1.4, (7 + 0.6 - 0.3) / 1.4]
    assert found.tolist() == pytest.approx(expected)
    assert seen == [(2, 3, 4, 4, 4)]


@pytest.mark.parametrize("term", [torch.tensor(1.0), torch.ones(3)])
def test_a_term_of_the_whole_batch_is_refused(term: torch.Tensor) -> None:
    labels = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="one value per sample, which no other sample changes"):
        deep_supervised(DiceCE(), [torch.zeros(2, 3, 4, 4, 4), term], labels, [1, 1])

"""What leaves is on a public grid, noise first and rounding after, as wide as it is accounted for."""

from __future__ import annotations

import math

import pytest
import torch

from fedbrats.privacy.noise import secret_numbers
from fedbrats.privacy.release import MARGIN, grid_of, release


@pytest.mark.parametrize(
    ("deviation", "grid"),
    [(1.0, 2.0**-10), (1024.0, 1.0), (1.999, 2.0**-10), (0.999, 2.0**-11), (10.0, 2.0**-7), (3e-9, 2.0**-39)],
)
def test_the_grid_is_a_power_of_two_below_the_deviation(deviation: float, grid: float) -> None:
    assert grid_of(deviation) == grid
    assert 1024 <= deviation / grid < 2048


@pytest.mark.parametrize("deviation", [1e-6, 0.7, 20.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_what_leaves_is_a_multiple_of_the_grid_and_exact_in_float32(deviation: float, scale: float) -> None:
    total = scale * deviation * torch.rand(5000, dtype=torch.float64)
    found = release(total, deviation, secret_numbers(1))
    steps = found / grid_of(deviation)
    assert torch.equal(steps, steps.round())
    assert torch.equal(found.float().double(), found)
    assert bool((steps % 2).any()), "no coarser one"
    assert not bool(torch.signbit(found[found == 0]).any())


def test_noise_comes_before_rounding() -> None:
    """A sum far below the grid still moves what leaves, as often as it should."""
    grid = grid_of(1.0)
    total = torch.full((400_000,), 0.25 * grid, dtype=torch.float64)
    moved = release(total, 1.0, secret_numbers(1)) - release(total - total, 1.0, secret_numbers(1))
    assert set((moved / grid).unique().tolist()) == {0.0, 1.0}
    share = float(moved.bool().double().mean())
    assert share == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / len(total)))


def test_the_noise_is_a_millionth_wider_than_accounted() -> None:
    noise = secret_numbers(4).normal(1000)
    found = release(torch.zeros(1000, dtype=torch.float64), 3.0, secret_numbers(4))
    assert float((found - 3.0 * (1 + 2.0**-20) * noise).abs().max()) <= grid_of(3.0) / 2
    assert MARGIN == 1 + 2.0**-20
    assert float(found.std()) == pytest.approx(3.0, rel=4 / math.sqrt(2000))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4), (0,)])
def test_shape_and_dtype_are_those_of_the_sum(shape: tuple[int, ...]) -> None:
    total = torch.zeros(shape, dtype=torch.float64)
    found = release(total, 1.0, secret_numbers())
    assert (found.shape, found.dtype) == (total.shape, total.dtype)
    assert not bool(total.any()), "left as it was"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_leaves() -> None:
    total = torch.rand(1000, dtype=torch.float64)
    there = release(total.cuda(), 1.0, secret_numbers(2))
    assert there.is_cuda
    assert torch.equal(there.cpu(), release(total, 1.0, secret_numbers(2)))

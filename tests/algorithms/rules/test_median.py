"""The coordinate-wise median by hand, and against sites that lie."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from fedbrats.algorithms.base import Company
from fedbrats.algorithms.rules import rule
from fedbrats.algorithms.rules.bulyan import Bulyan
from fedbrats.algorithms.rules.krum import Krum
from fedbrats.algorithms.rules.median import CoordinateMedian
from fedbrats.algorithms.rules.rule import Rule
from fedbrats.algorithms.rules.trimmed_mean import TrimmedMean
from tests.algorithms.rules.test_trimmed_mean import made

median_of = partial(made, CoordinateMedian())


def test_each_number_has_a_median_of_its_own() -> None:
    assert median_of([1, 9, 5], [2, 8, 5], [3, 1, 7]) == [2, 8, 5]


def test_of_an_even_number_of_sites_it_is_the_middle_of_two() -> None:
    assert median_of([1, 0], [4, 0], [2, 1], [9, 1]) == [3, 0.5]
    assert median_of([2.5, -1.0]) == [2.5, -1.0]
    assert median_of([6e4], [6e4], dtype=np.float16) == [6e4]  # whose sum would be infinite


def test_fewer_than_half_of_the_sites_cannot_move_it_out_of_the_others() -> None:
    honest = [[1.0], [2.0], [3.0]]
    for lie in (1e30, -1e30):
        assert 1 <= median_of(*honest, [lie], [lie])[0] <= 3


def test_it_agrees_with_numpy_and_takes_any_shape() -> None:
    values = np.random.default_rng(0).normal(size=(6, 3, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(median_of(*values), np.median(values, axis=0), rtol=1e-6)


@pytest.mark.parametrize("algorithm", [CoordinateMedian(), TrimmedMean(), Bulyan(), Krum(chosen=4)])
def test_an_array_of_many_blocks_becomes_what_it_would_as_a_whole(
    algorithm: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).normal(size=(7, 3, 5, 11)).astype(np.float32)
    whole = made(algorithm, *values)
    monkeypatch.setattr(rule, "BLOCK", 16)  # the last one is of 5
    np.testing.assert_allclose(made(algorithm, *values), whole, atol=3e-7)  # torch's means go by the layout


def test_no_block_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, sort = list[tuple[int, ...]](), torch.Tensor.sort
    monkeypatch.setattr(rule, "BLOCK", 16)
    monkeypatch.setattr(
        torch.Tensor, "sort", lambda v, dim: (seen.append(tuple(v.shape)), sort(v, dim=dim))[1]
    )
    median_of(*np.zeros((3, 40)))
    assert seen == [(3, 16), (3, 16), (3, 8)]


@pytest.mark.parametrize("shape", [(), (0,)])
def test_a_single_number_and_nothing_at_all(shape: tuple[int, ...]) -> None:
    assert np.shape(median_of(np.ones(shape), np.ones(shape))) == shape


def test_what_it_cannot_be_combined_with() -> None:
    assert "privacy=central" in str(CoordinateMedian().refuses(Company(central_privacy=True)))
    assert CoordinateMedian().refuses(Company(patient_privacy=True)) is None

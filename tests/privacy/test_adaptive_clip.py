"""The adaptive clipping bound against the paper's formulas, worked out by hand, and against a known median."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fedbrats.privacy.adaptive_clip import adapt, centred_count, gradient_sigma, next_clip


def test_the_two_noises_together_cost_sigma() -> None:
    # Scaled to unit noise, a patient moves the pair by (1 / sigma_gradient, (1/2) / sigma_b); its length is 1 / sigma.
    for sigma, count_sigma in [(1.0, 1.0), (0.5, 3.0), (4.0, 2.5)]:
        gradient = gradient_sigma(sigma, count_sigma)
        assert math.hypot(1 / gradient, 0.5 / count_sigma) == pytest.approx(1 / sigma, rel=1e-12)
        assert gradient > sigma
    assert gradient_sigma(1.0, 1.0) == pytest.approx(math.sqrt(4 / 3))
    assert gradient_sigma(0.0, 1.0) == 0.0


@pytest.mark.parametrize(
    ("sigma", "count_sigma"), [(2.0, 1.0), (1.0, 0.1), (1.0, 0.0), (1.0, -3.0), (-1.0, 3.0)]
)
def test_a_count_with_too_little_noise_is_refused(sigma: float, count_sigma: float) -> None:
    with pytest.raises(ValueError, match="count_sigma must be above sigma / 2"):
        gradient_sigma(sigma, count_sigma)


def test_a_patient_moves_the_count_by_half() -> None:
    values = [0.0, 0.5, 1.0, 1.0000001, 1e30, math.nan, math.inf]
    for drawn in itertools.combinations(values, 4):
        for left_out in range(4):
            others = drawn[:left_out] + drawn[left_out + 1 :]
            assert abs(centred_count(drawn, 1.0) - centred_count(others, 1.0)) <= 0.5
    assert centred_count([], 1.0) == 0.0
    assert centred_count([0.2, 1.0, 1.1], 1.0) == 0.5  # the bound itself is within
    assert centred_count([math.nan, math.inf], 1.0) == 0.0


def test_the_step_is_the_paper_s() -> None:
    # 3 of 4 within: the count is 1.5 - 0.5 = 1 and b = 1/4 + 1/2 = 3/4.
    assert next_clip(2.0, 1.0, 4.0) == pytest.approx(2.0 * math.exp(-0.2 * (0.75 - 0.5)))
    assert next_clip(2.0, 1.0, 4.0, quantile=0.9, rate=1.0) == pytest.approx(2.0 * math.exp(0.15))
    # An expected number of 8 although 4 were drawn: the divisor is the public one.
    assert next_clip(2.0, 1.0, 8.0) == pytest.approx(2.0 * math.exp(-0.2 * 0.125))


def test_noise_is_added_to_the_count_before_the_step() -> None:
    noise = torch.Generator().manual_seed(3)
    drawn = float(torch.randn((), generator=noise.clone_state(), dtype=torch.float64))
    found = adapt(2.0, [0.5, 3.0, 1.0], expected=4.0, count_sigma=3.0, noise=noise)
    assert found == next_clip(2.0, 0.5 + 3.0 * drawn, 4.0, quantile=0.5, rate=0.2)


def test_the_noise_of_the_count_has_its_deviation() -> None:
    noise = torch.Generator().manual_seed(0)
    moves = [
        math.log(adapt(1.0, [0.5, 2.0], expected=4.0, count_sigma=3.0, noise=noise, rate=1.0))
        for _ in range(4000)
    ]
    found = torch.tensor(moves, dtype=torch.float64)
    assert float(found.std()) == pytest.approx(3.0 / 4.0, rel=4 / math.sqrt(2 * 4000))
    assert abs(float(found.mean())) < 4 * 0.75 / math.sqrt(4000)


@pytest.mark.parametrize("quantile", [0.5, 0.9])
@pytest.mark.parametrize("start", [0.1, 10.0])
def test_it_finds_the_quantile_from_below_and_from_above(start: float, quantile: float) -> None:
    norms = torch.distributions.LogNormal(0.0, 0.5)  # median 1
    draws, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    clip, trace = start, []
    for _ in range(1500):
        sample = torch.exp(0.5 * torch.randn(8, generator=draws)).tolist()
        clip = adapt(clip, sample, expected=8.0, count_sigma=1.0, noise=noise, quantile=quantile, rate=0.1)
        trace.append(math.log(clip))
    truth = float(norms.icdf(torch.tensor(quantile)))
    assert math.exp(sum(trace[500:]) / 1000) == pytest.approx(truth, rel=0.06)
    assert all(0.4 * truth < math.exp(value) < 2.5 * truth for value in trace[500:])

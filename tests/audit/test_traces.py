"""The attack on the digits of a release: it breaks noise of float32 with certainty, and finds nothing in ours."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedbrats.audit.step import Subject
from fedbrats.audit.traces import float32_noise, score_checks, trace_checks
from fedbrats.privacy.central import Central, PrivateMean
from fedbrats.privacy.mechanism import PrivateStep
from fedbrats.privacy.noise import secret_numbers
from fedbrats.privacy.release import grid_of
from fedbrats.privacy.scores import CENTRE, noisy_scores
from tests.audit import planted
from tests.audit.test_checks import Small, subject
from tests.privacy.test_central import reply

CERTAIN = 20  # -log10 of a p-value that nobody puts down to chance


def failed(made: Subject) -> set[str]:
    return {check.name for check in trace_checks(made) if not check.passed}


@pytest.mark.parametrize(("clip", "sigma"), [(0.7, 1.3), (0.5, 2.0), (1e-3, 20.0), (50.0, 0.05)])
def test_the_right_step_shows_nothing(clip: float, sigma: float) -> None:
    for seed in range(2):
        assert failed(subject(seed, clip=clip, sigma=sigma)) == set()


def test_the_right_step_shows_nothing_in_the_digits_of_float64() -> None:
    made = subject(network=Small().double())
    object.__setattr__(made, "patients", [(images.double(), labels) for images, labels in made.patients])
    assert failed(made) == set()


@pytest.mark.parametrize(
    ("make", "found_by"),
    [
        (planted.NoiseOfFloat32, {"public grid", "traces of float32"}),
        (planted.NoiseOfFloat32ForSome, {"public grid", "traces of float32"}),
        (planted.NoiseOfTorch, {"public grid", "traces of float32"}),
        (planted.NoiseOfFloat64, {"public grid"}),
        (planted.RoundedBeforeTheNoise, {"public grid"}),
        (planted.FinerForMany, {"public grid"}),
        (planted.CoarserForMany, {"public grid"}),
    ],
)
def test_a_planted_mistake_is_found(make: type[PrivateStep], found_by: set[str]) -> None:
    for sigma in (0.5, 20.0):
        assert failed(subject(make=make, sigma=sigma)) == found_by


def noise_of_weights(make: type[PrivateStep], drawn: int, sigma: float, lr: float = 0.3) -> list[Tensor]:
    """What an outsider sees: the weights before and after one SGD step of `lr`, and what the noise would be."""
    wide = nn.Sequential(nn.Conv3d(4, 64, 3, padding=1), nn.Conv3d(64, 3, 1))
    made = subject(make=make, sigma=sigma, network=wide)
    object.__setattr__(made, "noise", secret_numbers)
    before = copy.deepcopy(made.network)
    optimizer = torch.optim.SGD(made.network.parameters(), lr=lr)
    made.step().gradients(made.patients[:drawn])
    optimizer.step()
    return [
        ((b.double() - a.double()) * made.expected / (lr * sigma * made.clip)).detach().flatten()
        for a, b in zip(made.network.parameters(), before.parameters(), strict=True)
    ]


def surprise(make: type[PrivateStep], drawn: int) -> float:
    return -math.log10(max(1e-300, min(float32_noise(noise_of_weights(make, drawn, sigma=20.0)))))


def test_weights_after_one_step_do_not_tell_that_nobody_was_drawn() -> None:
    """Sigma 20 and q 1/4 are accounted as epsilon 0.04 (delta 1e-5, PRV); noise of float32 gives it all away."""
    assert surprise(planted.NoiseOfFloat32, 0) > CERTAIN
    for drawn in (1, 3):
        assert surprise(planted.NoiseOfFloat32, drawn) < 4
    for drawn in (0, 1, 3):
        assert surprise(PrivateStep, drawn) < 4


def scores_of_float32(scores: np.ndarray, sigma: float) -> np.ndarray:
    """Noisy means as they were made once: noise of float32, added in float64."""
    patients, each = scores.shape
    words = torch.from_numpy(np.random.default_rng().integers(-(2**31), 2**31, (2, each), dtype=np.int32))
    noise = planted.box_muller(words)[:each].double().numpy()
    total = (scores - CENTRE).sum(axis=0) + sigma * CENTRE * math.sqrt(each) * noise
    return (CENTRE + total / patients).clip(0.0, 1.0)


def ours(scores: np.ndarray, sigma: float) -> np.ndarray:
    return noisy_scores(scores, sigma, secret_numbers())


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 10.0])
def test_a_noisy_score_cannot_be_inverted(sigma: float) -> None:
    assert all(check.passed for check in score_checks(ours, sigma))


def test_a_noisy_score_of_float32_is_inverted_every_time() -> None:
    inverted, grid = score_checks(scores_of_float32, 1.0)
    assert inverted.measured > 90
    assert not grid.passed


def test_scores_that_are_rounded_too_early_are_found() -> None:
    def early(scores: np.ndarray, sigma: float) -> np.ndarray:
        noise = secret_numbers().normal(scores.shape[1]).numpy()
        return ours(scores, 1e-9) + sigma * noise / len(scores)

    assert [check.passed for check in score_checks(early, 1.0)] == [True, False]


def test_the_servers_noise_shows_nothing() -> None:
    """Nothing moved: the release is noise alone, on the grid over the number of replies."""
    central = Central(clip=0.5, sigma=3.0)
    noise = []
    for _ in range(3):
        mean = PrivateMean({"a": torch.zeros(100, 100, dtype=torch.float64)}, central)
        for _ in range(2):
            mean.add(reply({"a": np.zeros((100, 100))}))
        mean.finish(secret_numbers())
        steps = 2 * mean.arrays["a"].flatten() / grid_of(1.5)
        assert torch.equal(steps, steps.round())
        noise.append(2 * mean.arrays["a"].flatten() / 1.5)
    assert min(float32_noise(noise)) > 1e-4

from __future__ import annotations

import math

import numpy as np
import pytest

from fedbrats.privacy.accounting import EXACT, Entry, final_epsilon, gaussian_epsilon
from fedbrats.privacy.noise import secret_numbers
from fedbrats.privacy.scores import noisy_scores, patient_means

TINY = 1e-12  # a sigma whose noise is below rounding


def test_a_patient_with_many_scans_counts_once() -> None:
    scores = np.array([[0.2, 1.0], [0.9, 0.5], [0.4, 0.0], [0.6, 0.2]])
    means = patient_means(scores, ["p", "q", "p", "p"])
    np.testing.assert_allclose(means, [[0.4, 0.4], [0.9, 0.5]])
    with pytest.raises(ValueError):
        patient_means(scores, ["p", "q"])


def test_without_noise_it_is_the_mean() -> None:
    scores = np.array([[0.2, 1.0, 0.0], [0.6, 0.5, 0.0]])
    np.testing.assert_allclose(noisy_scores(scores, TINY, secret_numbers(0)), [0.4, 0.75, 0.0], atol=1e-9)


def deviations(patients: int, scores: int, sigma: float, draws: int = 4000) -> np.ndarray:
    secret = secret_numbers(1)
    middle = np.full((patients, scores), 0.5)
    return np.array([noisy_scores(middle, sigma, secret) for _ in range(draws)]) - 0.5


@pytest.mark.parametrize(("patients", "scores", "sigma"), [(100, 3, 4.0), (20, 1, 1.0)])
def test_noise_is_as_wide_as_one_patient_times_sigma(patients: int, scores: int, sigma: float) -> None:
    # By hand: each of R scores is at most 1/2 from the centre, so a patient is at most sqrt(R / 4) long.
    found = deviations(patients, scores, sigma)
    expected = sigma * math.sqrt(scores / 4) / patients
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=4 / math.sqrt(2 * len(found)))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=4 * expected / math.sqrt(len(found)))


def test_the_scores_get_noise_of_their_own() -> None:
    found = deviations(100, 3, 1.0)
    off_diagonal = np.corrcoef(found.T)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 4 / math.sqrt(len(found))


@pytest.mark.parametrize("extreme", [[1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [50.0, -7.0, math.inf]])
def test_no_patient_moves_the_sum_by_more_than_the_noise_is_scaled_to(extreme: list[float]) -> None:
    others = np.array([[0.3, 0.6, 0.5], [0.4, 0.5, 0.6], [0.5, 0.4, 0.5]])
    absent = np.full(3, 0.5)  # a patient who says nothing, with the number of patients public
    with_it = noisy_scores(np.vstack([others, extreme]), TINY, secret_numbers(0))
    without = noisy_scores(np.vstack([others, absent]), TINY, secret_numbers(0))
    assert 4 * np.linalg.norm(with_it - without) == pytest.approx(math.sqrt(3) / 2)


def test_what_is_released_is_a_score() -> None:
    found = noisy_scores(np.full((1, 500), 0.9), 10.0, secret_numbers(0))
    assert found.min() == 0.0
    assert found.max() == 1.0


def test_every_release_costs_what_the_gaussian_mechanism_costs() -> None:
    entries = [Entry(10.0, 1.0, 1)] * 50
    assert final_epsilon(entries, 1e-5) == (gaussian_epsilon(math.sqrt(50) / 10, 1e-5), EXACT)


@pytest.mark.slow
def test_two_neighbours_can_be_told_apart_as_often_as_epsilon_allows_and_no_more() -> None:
    # At threshold 0 the two outputs are a Gaussian apart by 1 / sigma: delta(0) = 2 Phi(1 / (2 sigma)) - 1 = 0.3829.
    secret, draws = secret_numbers(2), 20_000
    patients, sigma = 40, 1.0
    absent = np.full((patients, 1), 0.5)
    present = absent.copy()
    present[0] = 1.0
    cut = 0.5 + 0.25 / patients  # midway between the means of the two
    above = [
        np.mean([noisy_scores(s, sigma, secret)[0] > cut for _ in range(draws)]) for s in (present, absent)
    ]
    assert above[0] - above[1] == pytest.approx(0.3829, abs=4 * math.sqrt(0.5 / draws))


@pytest.mark.parametrize(
    "scores", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), np.array([[0.5, math.nan]])]
)
def test_what_cannot_be_released_is_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"scores of shape|not a number"):
        noisy_scores(scores, 1.0, secret_numbers(0))

"""Validation scores that leave a site with noise, so that they are private for the patients they were measured on.

The mechanism is Gaussian, with the patient as the unit and without sampling: one release is `Entry(sigma, 1.0, 1)`, in
the ledger of the site, an entry of its own kind. Those who validate are others than those who train, so that the two do
not add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from fedbrats.privacy.noise import SecretNumbers
from fedbrats.privacy.release import release

CENTRE = 0.5  # of the range [0, 1] of a score; a patient's distance from it is at most half the range


def patient_means(scores: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Means over the cases of each patient, so that many scans give nobody more weight.

    Args:
        scores: [cases, scores].
        patients: of each case.

    Returns:
        [patients, scores], patients in order of first appearance.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for patient, row in zip(patients, scores, strict=True):
        rows.setdefault(patient, []).append(row)
    return np.array([np.mean(own, axis=0) for own in rows.values()])


def noisy_scores(per_patient: np.ndarray, sigma: float, secret: SecretNumbers) -> np.ndarray:
    """Mean scores of n patients with noise; reserve the release in the ledger first.

    A patient's R scores, clipped to [0, 1], lie within sqrt(R) / 2 of the centre, which bounds what one patient can do
    to the sum of the distances. Noise of sigma times that bound is added to the sum, and both are rounded to a public
    grid, so that not even one who knows all other scores can work back from a digit; n is public. The deviation of a
    released score is therefore sigma sqrt(R) / (2 n).

    Args:
        per_patient: [n, R], one row per patient (`patient_means`). A loss is not a score: it has no bound.
        sigma: noise multiplier.
        secret: from `privacy.noise.secret_numbers`, of this release only.

    Returns:
        [R] float64 in [0, 1].

    Raises:
        ValueError: no patient, not a table, or a score that is not a number.
    """
    if per_patient.ndim != 2 or not per_patient.size:
        raise ValueError(
            f"scores of shape {per_patient.shape}, expected [patients, scores] with at least one each"
        )
    if np.isnan(per_patient).any():
        raise ValueError("a score that is not a number cannot be released")
    patients, scores = per_patient.shape
    bound = CENTRE * math.sqrt(scores)
    total = (np.clip(per_patient, 0.0, 1.0).astype(np.float64) - CENTRE).sum(axis=0)
    mean: np.ndarray = CENTRE + release(torch.from_numpy(total), sigma * bound, secret).numpy() / patients
    return mean.clip(0.0, 1.0)

"""A clipping bound that follows a quantile of the patients' gradient norms (Andrew et al., NeurIPS 2021).

Each step releases, next to the noisy gradient, a noisy count of the drawn patients whose norm is within the bound C,
and moves C by it: C <- C exp(-rate (b - quantile)), b the noisy share of patients *within* the bound (section 2.2). Too
many within: C falls. With the share of clipped patients in the place of b, C runs away, to 0 or without end.

Gradient and count together are one Gaussian mechanism of noise multiplier sigma (Theorem 1), so an accountant sees
sigma and nothing else, as long as the gradient gets `gradient_sigma` and the count `count_sigma`. What follows from the
released count, C, costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

# A patient adds 1/2 or takes 1/2 away; with 1 and 0 the sensitivity would be 1.
COUNT_SENSITIVITY = 0.5


def gradient_sigma(sigma: float, count_sigma: float) -> float:
    """Noise multiplier of the gradient that, with the count's, makes `sigma`: (sigma^-2 - (2 sigma_b)^-2)^(-1/2).

    Args:
        sigma: noise multiplier of the pair, the one to account; 0 for no privacy.
        count_sigma: sigma_b, standard deviation of the count's noise, in patients. Twice sigma costs the gradient 3 %
            more noise.

    Raises:
        ValueError: the count's noise alone does not reach `sigma`.
    """
    if sigma == 0:
        return 0.0
    left = sigma**-2 - (COUNT_SENSITIVITY / count_sigma) ** 2 if count_sigma > 0 else -math.inf
    if not (sigma > 0 and left > 0):
        raise ValueError(
            f"adaptive clipping: sigma={sigma}, count_sigma={count_sigma}: count_sigma must be above sigma / 2."
        )
    return float(left**-0.5)


def centred_count(norms: Iterable[float], clip: float) -> float:
    """Sum over the drawn patients of +1/2 (norm <= clip) or -1/2 (above); one patient moves it by 1/2.

    A norm that is not finite belongs to a patient who contributes nothing, here as in the gradient.
    """
    return sum(
        COUNT_SENSITIVITY if norm <= clip else -COUNT_SENSITIVITY for norm in norms if math.isfinite(norm)
    )


def next_clip(clip: float, count: float, expected: float, quantile: float = 0.5, rate: float = 0.2) -> float:
    """The bound of the next step.

    Args:
        clip: bound C of this step.
        count: `centred_count`, with noise.
        expected: the public q*N; the number drawn is private, so nothing is divided by it.
        quantile: share of patients whose norm is to lie within the bound.
        rate: eta of the paper, which uses 0.2.
    """
    within = count / expected + COUNT_SENSITIVITY
    return clip * math.exp(-rate * (within - quantile))


def adapt(
    clip: float,
    norms: Iterable[float],
    *,
    expected: float,
    count_sigma: float,
    noise: torch.Generator,
    quantile: float = 0.5,
    rate: float = 0.2,
) -> float:
    """The bound after a step whose drawn patients had `norms`, with the count's noise from `noise`, a CPU generator."""
    drawn = torch.randn((), generator=noise, dtype=torch.float64)
    count = centred_count(norms, clip) + count_sigma * float(drawn)
    return next_clip(clip, count, expected, quantile, rate)

"""What a private sum becomes before it leaves: noise is added first, then all is rounded to one public grid.

A sum in floating point shows more than its value: which numbers the noise can take at all (Mironov, CCS 2012; Jin et
al., IEEE S&P 2022), and how fine the digits of the secret under it are (Haney et al., arXiv 2207.13793). Sum and noise
are therefore added in float64 and rounded to multiples of a power of two that follows from the noise's deviation alone.
It is some 2^41 times the last digit of the noise, so that neither kind of trace is left, and a 2^10th of the deviation
at most, so that rounding adds less than one part in ten million to the noise's variance. Rounding comes after the noise
and looks at public numbers only; it costs no privacy (post-processing).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedbrats.privacy.noise import SecretNumbers

STEPS = 2.0**10  # of the grid within a deviation, at least
# Makes the noise wider than it is accounted for, by more than float64 can lose in clipping and adding up.
MARGIN = 1 + 2.0**-20


def grid_of(deviation: float) -> float:
    """Distance of neighbours on the public grid: the largest power of two at or below `deviation` / 2^10."""
    return math.ldexp(0.5, math.frexp(deviation / STEPS)[1])


def release(total: Tensor, deviation: float, secret: SecretNumbers) -> Tensor:
    """`total` with Gaussian noise, on the public grid.

    Args:
        total: a sum to which each patient (or site) adds a vector of bounded length; any shape, float64.
        deviation: of the noise.
        secret: what the noise is taken from.

    Returns:
        Multiples of `grid_of(deviation)`, of the shape, dtype and device of `total`.
    """
    grid = grid_of(deviation)
    noise = secret.normal(total.numel()).view(total.shape).mul_(deviation * MARGIN)
    noisy = noise.add_(total.detach().to("cpu", torch.float64))
    # Adding 0 turns -0 into 0: there is one zero on the grid.
    return noisy.div_(grid).round_().mul_(grid).add_(0.0).to(total.device, total.dtype)

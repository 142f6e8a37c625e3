"""Attacks on the digits of what is released: a right mechanism shows nothing but multiples of a public grid.

Numbers in floating point tell more than their value. The normal numbers of float32 are made of uniform ones on a grid
of 2^-24, which comes to light again when two numbers that were made together are put back: if it does, the noise is all
there is, and nobody was drawn. A noisy score is inverted by trying every value it may have: only the right one leaves a
number behind that float32 can hold (Mironov, CCS 2012; Jin et al., IEEE S&P 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from fedbrats.audit.step import Check, Subject, at_most, surprise
from fedbrats.privacy.release import grid_of
from fedbrats.privacy.scores import CENTRE

UNIFORM = 2.0**24  # steps of float32's uniform numbers in [0, 1)
# Of exp(-(a^2 + b^2) / 2), the uniform number behind a pair: below, float32 has lost its digits; above, a pair on the
# public grid is so small that it has few values.
CLEAR = (0.9, 0.998)
NEAR = 0.125  # steps; a quarter of all numbers are as near to a whole one
NUMBERS = 6_000  # at least, of noise
MOST = 1 << 16  # pairs of an array, which are plenty
FEW = 64  # numbers that are all even once in 2^64 times
BLOCK = 16  # numbers that torch makes at a time, eight pairs
DICE, SCORES, PATIENTS, RELEASES = 1000, 3, 12, 100  # values that a score may have, and what is released
Release = Callable[
    [np.ndarray, float], np.ndarray
]  # scores [patients, scores] and sigma -> noisy means [scores]


def trace_checks(subject: Subject) -> list[Check]:
    """All checks of the digits of a step."""
    return [on_the_grid(subject), nobody_drawn(subject)]


def on_the_grid(subject: Subject) -> Check:
    """All that a step releases must be multiples of one public grid, over q N, whoever was drawn."""
    grid = grid_of(subject.sigma * subject.clip)
    drawn = [subject.released(subject.step(), patients) for patients in ([], list(subject.patients))]
    digits = 2 * max(torch.finfo(p.dtype).eps for p in subject.trained)
    sums = [gradient * subject.expected for gradient in drawn]
    return at_most(
        "public grid",
        max(off_grid(noisy, grid, digits * noisy.abs()) for noisy in sums),
        1.0,
        f"Largest distance of gradient times q N from a multiple of {grid:.4g}, with nobody and with "
        f"{len(subject.patients)} patients drawn, over what rounding to the weights' own digits explains.",
    )


def nobody_drawn(subject: Subject) -> Check:
    """What a step releases must not tell an attacker that it is noise alone, nor that it is noise and these patients.

    The attacker knows the gradient, as one SGD step from weights of 0 shows it, and for the second guess the patients.
    """
    step, patients = subject.step(), list(subject.patients)
    sizes = [p.numel() for p in subject.trained]
    guess, chances = subject.total(patients), []
    for drawn, known in (([], torch.zeros_like(guess)), (patients, guess)):
        noise = []
        for _ in range(math.ceil(NUMBERS / sum(sizes))):
            left = subject.released(step, drawn) * subject.expected - known
            noise += list((left / (subject.sigma * subject.clip)).split(sizes))
        chances += float32_noise(noise)
    return surprise(
        "traces of float32",
        chances,
        "Whether noise that is made of float32 shows in what is left when the right patients, or nobody, are taken "
        "off; -log10 of the smallest p-value.",
    )


def off_grid(numbers: Tensor, grid: float, error: Tensor) -> float:
    """Largest distance of `numbers` from multiples of `grid`, over the `error` of each; float64, of any shape.

    Infinite for more than a few numbers on a coarser grid, which somebody must have had a reason to choose.
    """
    steps = (numbers / grid).round()
    if numbers.numel() > FEW and not (steps % 2).any():
        return math.inf
    return float(((numbers - steps * grid).abs() / error.clamp(min=1e-9 * grid)).max())


def float32_noise(arrays: Sequence[Tensor]) -> list[float]:
    """p-values of the arrays, each float64 [n], being anything but Box and Muller's (1958) numbers in float32.

    One for each way in which numbers may have been made together: the halves of an array, the halves of each 16, as
    torch has them on a CPU, and neighbours.
    """
    near, seen = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    for array in arrays:
        for way, (a, b) in enumerate(_pairs(array)):
            uniform = torch.exp(-(a[:MOST].square() + b[:MOST].square()) / 2)
            steps = UNIFORM * uniform[(uniform > CLEAR[0]) & (uniform < CLEAR[1])]
            near[way] += int(((steps - steps.round()).abs() < NEAR).sum())
            seen[way] += len(steps)
    return list(binom.sf(near - 1, seen, 2 * NEAR))


def _pairs(numbers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    half, whole = -(-len(numbers) // 2), len(numbers) // BLOCK * BLOCK
    yield numbers[: len(numbers) - half], numbers[half:]
    blocks = numbers[:whole].view(-1, 2, BLOCK // 2)
    yield blocks[:, 0].flatten(), blocks[:, 1].flatten()
    even = numbers[: len(numbers) // 2 * 2]
    yield even[::2], even[1::2]


def score_checks(release: Release, sigma: float, seed: int = 0) -> list[Check]:
    """A noisy score must not be inverted by one who knows all scores but one, and must lie on the public grid."""
    rng = np.random.default_rng(seed)
    deviation = sigma * CENTRE * math.sqrt(SCORES)
    grid, inverted, whole = grid_of(deviation), 0, []
    for _ in range(RELEASES):
        scores = rng.integers(0, DICE + 1, (PATIENTS, SCORES)) / DICE
        means = torch.from_numpy(release(scores, sigma))
        noisy = PATIENTS * (means - CENTRE)
        inverted += inverts(float(noisy[0]), scores[:, 0], deviation)
        whole.append(noisy[(means > 0) & (means < 1)])  # the others were cut off
    sums = torch.cat(whole)
    what = f"{RELEASES} means of {PATIENTS} patients at sigma {sigma:.3g}"
    return [
        at_most(
            "scores inverted", inverted, 0, f"Of {what}, those from which one patient's score was worked out."
        ),
        at_most(
            "public grid of scores",
            off_grid(sums, grid, torch.full_like(sums, PATIENTS * 2.0**-51)) if len(sums) else 0.0,
            1.0,
            f"Largest distance of {what} from multiples of {grid:.4g}, over what rounding to 64 bits explains.",
        ),
    ]


def inverts(noisy: float, scores: np.ndarray, deviation: float) -> bool:
    """Whether `noisy`, the released sum of distances from the centre, gives away the first score, of `DICE` possible.

    The attacker knows the other scores [patients] and takes off every value that the first may have. What remains is
    the noise, which has no more digits than float32 holds.
    """
    others = float((scores[1:] - CENTRE).sum())
    values = np.arange(DICE + 1) / DICE
    noise = (noisy - others - (values - CENTRE)) / deviation
    held = np.abs(noise.astype(np.float32).astype(np.float64) - noise) < 1e-13 * np.abs(noise) + 2.0**-50
    return bool(held.sum() == 1 and values[held][0] == scores[0])

"""How often a 95 % interval covers: `python -m fedbrats.metrics.coverage`, the table of `metrics/README.md`.

Samples are drawn from distributions of which the mean is known, and it is counted how often each kind of interval holds
it. Percentile bootstrap, BCa and Student's t are what else could have been used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from fedbrats.metrics.hd95 import BRATS2023_PENALTY
from fedbrats.metrics.interval import MIN_CASES, TAIL, mean_interval

Draw = Callable[[np.random.Generator, int], np.ndarray]
WORST = BRATS2023_PENALTY
RESAMPLES = 2000
SIZES = (2, 3, 5, 6, 8, 10, 15, 22, 35, 50)
MANY = 2_000_000  # values by which the mean of a distribution is known


def _with_zeros(share: float) -> Draw:
    return lambda random, n: random.beta(12, 1.5, n) * (random.random(n) >= share)


def _hd95(random: np.random.Generator, n: int) -> np.ndarray:
    found = np.minimum(random.lognormal(1.5, 0.7, n), WORST)
    return np.where(random.random(n) < 0.05, WORST, found)


def _gain(random: np.random.Generator, n: int) -> np.ndarray:
    """Small gains, none on a third of the cases, and one case of twenty lost altogether."""
    small = random.normal(0.02, 0.05, n).clip(-1, 1) * (random.random(n) >= 0.36)
    return np.where(random.random(n) < 0.05, -1.0, small)


CASES: dict[str, tuple[Draw, tuple[float, float]]] = {
    "Dice, Beta(8, 2)": (lambda random, n: random.beta(8, 2, n), (0, 1)),
    "Dice, Beta(12, 1)": (lambda random, n: random.beta(12, 1, n), (0, 1)),
    "Dice, 10 % zeros": (_with_zeros(0.10), (0, 1)),
    "Dice, 36 % zeros": (_with_zeros(0.36), (0, 1)),
    "HD95, 5 % penalty": (_hd95, (0, WORST)),
    "gain, 5 % lost": (_gain, (-1, 1)),
}
FEDERATIONS = {
    "2 of 5 and 5 cases": [5, 5],
    "4 of 4 to 8": [8, 6, 4, 4],
    "7 of 2 to 5 (the demo)": [5, 4, 4, 3, 2, 2, 2],
    "7, one of 40": [40, 4, 4, 3, 2, 2, 2],
    "23 of 1 to 40": [1] * 8 + [3] * 10 + [8, 8, 12, 20, 40],
}


def _alike(random: np.random.Generator, n: int) -> np.ndarray:
    mean = random.beta(9, 2)
    return random.beta(20 * mean + 1e-3, 20 * (1 - mean) + 1e-3, n)


def _zeros_by_site(random: np.random.Generator, n: int) -> np.ndarray:
    return random.beta(8, 2, n) * (random.random(n) >= random.beta(1.2, 2))


SITES: dict[str, tuple[Draw, tuple[float, float]]] = {  # the cases of one institution of many
    "alike within": (_alike, (0, 1)),
    "zeros by institution": (_zeros_by_site, (0, 1)),
    "HD95, 5 % penalty": (_hd95, (0, WORST)),
}


def over_cases(name: str, n: int, samples: int, seed: int = 0) -> tuple[float, float]:
    """How often the interval of `n` cases holds the mean, and its mean width as a share of the range."""
    draw, ends = CASES[name]
    random, truth = np.random.default_rng(seed), _mean_of_cases(name)
    return _covered((mean_interval(draw(random, n), ends) for _ in range(samples)), truth, ends)


def over_institutions(name: str, sizes: Sequence[int], samples: int, seed: int = 0) -> tuple[float, float]:
    """The same of institutions with so many cases, of the mean over the cases of institutions like these."""
    draw, ends = SITES[name]
    random, truth = np.random.default_rng(seed), _mean_of_institutions(name)
    groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
    found = (
        mean_interval(np.concatenate([draw(random, n) for n in sizes]), ends, groups) for _ in range(samples)
    )
    return _covered(found, truth, ends)


@cache
def _mean_of_cases(name: str) -> float:
    return float(CASES[name][0](np.random.default_rng(1), MANY).mean())


@cache
def _mean_of_institutions(name: str) -> float:
    random = np.random.default_rng(1)
    return float(np.mean([SITES[name][0](random, 1) for _ in range(MANY // 10)]))


def _covered(
    found: Iterable[tuple[float, float]], truth: float, ends: tuple[float, float]
) -> tuple[float, float]:
    low, high = np.array(list(found)).T
    held = (low <= truth) & (truth <= high)
    return float(held.mean()), float(np.mean(high - low) / (ends[1] - ends[0]))


def usual(name: str, n: int, samples: int, seed: int = 0) -> tuple[float, float, float]:
    """How often percentile bootstrap, BCa and Student's t (clipped to the range) hold the mean."""
    draw, ends = CASES[name]
    random, truth = np.random.default_rng(seed), _mean_of_cases(name)
    picks, counts = random.integers(0, n, (RESAMPLES, n)), np.zeros(3)
    for _ in range(samples):
        values = draw(random, n)
        means = np.sort(values[picks].mean(axis=1))
        half = stdtrit(n - 1, 1 - TAIL) * values.std(ddof=1) / n**0.5
        several = (
            np.quantile(means, [TAIL, 1 - TAIL]),
            np.quantile(means, _bca_shares(values, means)),
            np.clip([values.mean() - half, values.mean() + half], *ends),
        )
        counts += [low <= truth <= high for low, high in several]
    percentile, bca, student = (counts / samples).tolist()
    return percentile, bca, student


def _bca_shares(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Efron 1987, bias corrected and accelerated; the acceleration by the jackknife."""
    apart = values - values.mean()
    if not apart.any():
        return np.array([TAIL, 1 - TAIL])
    below = (np.mean(means < values.mean()) + np.mean(means <= values.mean())) / 2
    bias = ndtri(np.clip(below, 1e-3, 1 - 1e-3))
    speed = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    moved = bias + ndtri([TAIL, 1 - TAIL])
    return np.asarray(ndtr(bias + moved / (1 - speed * moved)))


def main(samples: int = 500) -> None:
    """Print both tables as Markdown: percentile / BCa / t / ours (width)."""
    print(f"| n | {' | '.join(CASES)} |\n|---|{'---|' * len(CASES)}")
    for n in SIZES:
        print(f"| {n} | {' | '.join(_cell(name, n, samples) for name in CASES)} |", flush=True)
    print(f"\n| institutions | {' | '.join(SITES)} |\n|---|{'---|' * len(SITES)}")
    for title, sizes in FEDERATIONS.items():
        found = [over_institutions(name, sizes, samples) for name in SITES]
        print(f"| {title} | {' | '.join(_own(*one) for one in found)} |", flush=True)


def _cell(name: str, n: int, samples: int) -> str:
    own = _own(*over_cases(name, n, samples)) if n >= MIN_CASES else "none"
    return " / ".join([*(f"{100 * held:.0f}" for held in usual(name, n, samples)), own])


def _own(held: float, width: float) -> str:
    return f"**{100 * held:.0f}** ({width:.2f})"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

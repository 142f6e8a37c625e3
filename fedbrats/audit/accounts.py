"""Checks of what an epsilon rests on beside the step: who is drawn, where noise comes from, what the ledger holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import binom, chisquare

from fedbrats.audit.step import DEVIATIONS, Check, at_most, cosine, surprise
from fedbrats.privacy.accounting import Entry, final_epsilon, merge, rdp_epsilon
from fedbrats.privacy.noise import SecretNumbers
from fedbrats.privacy.sampler import draw_patients

Draw = Callable[[int, float, SecretNumbers], list[int]]
NUMBERS = 4096  # drawn from each noise source
AGREES = 1e-3  # relative, of an epsilon that is computed again


def sampling(
    count: int, sample_rate: float, secret: SecretNumbers, draw: Draw = draw_patients, runs: int = 4000
) -> list[Check]:
    """Draw `runs` times: each patient with rate q, independently of the others and of the last draw, once at most.

    The p-values are exact: patients drawn, pairs drawn together, and patients drawn twice in a row are binomial, and
    the number drawn is compared with Binomial(N, q) by a chi-squared test. What is surprising is drawn once more, and
    what is again is no chance: otherwise one right run in some thousands would fail.
    """
    draws = [draw(count, sample_rate, secret) for _ in range(runs)]
    checks = _sampling(count, sample_rate, draws)
    if not all(check.passed for check in checks):
        again = [draw(count, sample_rate, secret) for _ in range(runs)]
        checks, draws = _sampling(count, sample_rate, again), draws + again
    twice = sum(len(drawn) - len(set(drawn)) for drawn in draws)
    return [at_most("drawn twice", twice, 0, "Patients drawn more than once in a step."), *checks]


def _sampling(count: int, sample_rate: float, draws: Sequence[Sequence[int]]) -> list[Check]:
    runs = len(draws)
    present = np.zeros((runs, count), dtype=np.int64)
    for row, drawn in zip(present, draws):
        row[drawn] = 1
    often = _two_sided(present.sum(0), runs, sample_rate)
    together = (present.T @ present)[np.triu_indices(count, 1)]
    in_a_row = (present[0 : runs - 1 : 2] * present[1:runs:2]).sum(0)
    dependent = np.concatenate(
        [
            _two_sided(together, runs, sample_rate**2),
            _two_sided(in_a_row, runs // 2, sample_rate**2),
        ]
    )
    many = _number_drawn(present.sum(1), count, sample_rate)
    return [
        surprise(
            "sampling rate",
            often,
            f"How often each of {count} patients is drawn in {runs} steps with q = {sample_rate:.4g}; -log10 of the "
            "smallest p-value.",
        ),
        surprise(
            "independent sampling",
            np.append(dependent, many),
            f"Patients drawn together, twice in a row, and the number drawn, in {runs} steps; -log10 of the smallest "
            "p-value.",
        ),
    ]


def noise_sources(sources: Sequence[SecretNumbers]) -> Check:
    """Streams of different sites, rounds or purposes must not give the same noise."""
    drawn = [source.normal(NUMBERS) for source in sources]
    return at_most(
        "noise sources",
        max(cosine(a, b) for a, b in combinations(drawn, 2)),
        (DEVIATIONS + 1) / math.sqrt(NUMBERS),
        f"Largest correlation of the noise of {len(drawn)} sites and rounds.",
    )


def reserved_first(
    spent: Callable[[], Iterable[Entry]], train: Callable[[Callable[[], None]], object], planned: Entry
) -> Check:
    """The ledger must hold a round before that round looks at its first patient.

    Args:
        spent: reads the ledger.
        train: does one private round, and calls what it is given whenever it looks at a patient.
        planned: what the round releases.
    """
    before, seen = _steps(spent(), planned), []

    def watch() -> None:
        seen.append(_steps(spent(), planned) - before)

    train(watch)
    watch()
    return at_most(
        "reserved first",
        planned.steps - min(seen),
        0,
        f"Steps, of {planned.steps}, that were not yet in the ledger when the first patient was looked at.",
    )


def ledger_covers(site: str, history: Iterable[Entry], ledger: Iterable[Entry]) -> Check:
    """The site's own ledger must hold at least what the run reports."""
    held = {(e.sigma, e.sample_rate): e.steps for e in merge(ledger)}
    lacking = sum(max(0, e.steps - held.get((e.sigma, e.sample_rate), 0)) for e in merge(history))
    return at_most(
        f"ledger of {site}", lacking, 0, "Steps that the run reports and the ledger does not hold."
    )


def epsilon_again(
    site: str, history: Sequence[Entry], delta: float, epsilon: float, epsilon_rdp: float
) -> Check:
    """Epsilon, computed again from what was released, must be the one that is reported."""
    again, accountant = final_epsilon(history, delta)
    rdp = rdp_epsilon(history, delta)
    off = max(_apart(again, epsilon), _apart(rdp, epsilon_rdp))
    return at_most(
        f"epsilon of {site}",
        off,
        AGREES,
        f"Relative distance from the report of epsilon from {sum(e.steps for e in history)} steps at delta {delta:g}: "
        f"{again:.4g} by {accountant}, {rdp:.4g} by RDP; reported {epsilon:.4g} and {epsilon_rdp:.4g}.",
    )


def _apart(again: float, reported: float) -> float:
    if again == reported:  # also when both are infinite
        return 0.0
    return abs(again - reported) / reported if reported > 0 else math.inf


def _steps(entries: Iterable[Entry], like: Entry) -> int:
    return sum(e.steps for e in entries if (e.sigma, e.sample_rate) == (like.sigma, like.sample_rate))


def _two_sided(counts: np.ndarray, runs: int, rate: float) -> np.ndarray:
    """Exact two-sided p-values of binomial counts."""
    low, high = binom.cdf(counts, runs, rate), binom.sf(counts - 1, runs, rate)
    return np.minimum(1.0, 2 * np.minimum(low, high))


def _number_drawn(totals: np.ndarray, count: int, rate: float) -> float:
    """p-value of the numbers drawn against Binomial(count, rate), in bins that 5 or more are expected in."""
    expected = binom.pmf(np.arange(count + 1), count, rate) * len(totals)
    found = np.bincount(totals, minlength=count + 1)[: count + 1]
    edges, mass = [0], 0.0
    for value in range(count + 1):
        mass += expected[value]
        if mass >= 5 and expected[value + 1 :].sum() >= 5:
            edges.append(value + 1)
            mass = 0.0
    if len(edges) == 1:  # everybody is always drawn
        return 1.0
    bins = np.add.reduceat(expected, edges)
    return float(chisquare(np.add.reduceat(found, edges), bins * len(totals) / bins.sum()).pvalue)

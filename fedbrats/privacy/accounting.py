"""What a history of noisy releases costs: epsilon at a given delta, and the noise that a budget asks for.

Every release is the Poisson-subsampled Gaussian mechanism: each unit (a patient, a site) takes part with probability
`sample_rate` q, contributes a vector of norm at most C, and the sum gets Gaussian noise of deviation sigma * C.
Neighbours differ in whether one unit takes part; the number that the sum is divided by is public. For a patient: all
scans of one patient of a site contribute or contribute nothing (zero-out); how many patients and scans a site has is
public, who they are is not.

Three accountants, all of them upper bounds of the same quantity:

* RDP (Mironov, Talwar, Zhang, arXiv 1908.10530; conversion of Balle et al., arXiv 1905.09982, theorem 21): fast, 8 to
  30 % too large. Used after every round and to find sigma.
* PRV (Gopi, Lee, Wutschitz, arXiv 2106.02848), as Opacus computes it: tight, slower. Used once at the end.
* the exact value for q = 1 (Balle and Wang, arXiv 1805.06530, theorem 8), in closed form.

Opacus's Gaussian-DP accountant is not offered: it rests on a central limit theorem and reports less than is spent.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

EXACT, PRV, RDP = "exact Gaussian", "PRV", "RDP"
PRV_LIMIT = 100.0  # RDP epsilon above which PRV's grid no longer fits into memory
PRV_ENTRIES = 20  # distinct (sigma, q) above which PRV takes minutes
# Opacus's orders and some more on both ends, for very small and very large noise.
ORDERS = (
    *(1.01, 1.02, 1.05),
    *(1 + x / 10 for x in range(1, 100)),
    *range(12, 64),
    *(72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 768, 1024),
)
SIGMA_LIMIT = 1e6  # find_sigma gives up here
SIGMA_TOLERANCE = 1e-3  # relative


class BudgetError(RuntimeError):
    """No noise, however large, keeps the planned training within its budget."""


@dataclass(frozen=True)
class Entry:
    """So many equal releases; plain floats, so that it can be written as JSON.

    Args:
        sigma: noise multiplier, the noise's deviation in units of the clipping bound; 0 is no privacy at all.
        sample_rate: probability q with which a unit takes part in a release.
        steps: releases.

    Raises:
        ValueError: a value out of range; a rate above 1 must be clamped by the caller.
    """

    sigma: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", float(self.sigma))
        object.__setattr__(self, "sample_rate", float(self.sample_rate))
        if isinstance(self.steps, bool) or int(self.steps) != self.steps or self.steps < 0:
            raise ValueError(f"steps={self.steps!r}: must be a whole number, at least 0.")
        object.__setattr__(self, "steps", int(self.steps))
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma={self.sigma}: must be a number, at least 0.")
        if not 0 <= self.sample_rate <= 1:
            raise ValueError(f"sample_rate={self.sample_rate}: must lie in [0, 1].")


def merge(entries: Iterable[Entry]) -> list[Entry]:
    """Equal (sigma, sample_rate) summed, in order of first appearance; what releases nothing is left out."""
    steps: dict[tuple[float, float], int] = {}
    for entry in entries:
        if entry.steps and entry.sample_rate:
            key = (entry.sigma, entry.sample_rate)
            steps[key] = steps.get(key, 0) + entry.steps
    return [Entry(sigma, rate, number) for (sigma, rate), number in steps.items()]


def rdp_epsilon(entries: Iterable[Entry], delta: float) -> float:
    """Epsilon by Renyi differential privacy; 0 for nothing spent, infinity for a release without noise.

    Raises:
        ValueError: delta outside (0, 1).
    """
    _check_delta(delta)
    spent = merge(entries)
    return _converted(_rdp(spent), delta) if spent else 0.0


def prv_epsilon(entries: Iterable[Entry], delta: float) -> float | None:
    """Epsilon by privacy random variables, an upper bound at most 0.01 above the true value, less where it is small.

    Returns:
        0 for nothing spent; None where it cannot be had: no noise, an RDP epsilon above 100 (the grid would take
        gigabytes), more than 20 distinct (sigma, sample_rate) (minutes), or a delta too small for its arithmetic.

    Raises:
        ValueError: delta outside (0, 1).
    """
    spent = merge(entries)
    bound = rdp_epsilon(spent, delta)
    if not spent:
        return 0.0
    if not bound <= PRV_LIMIT or len(spent) > PRV_ENTRIES:
        return None
    accountant = _opacus().accountants.PRVAccountant()
    accountant.history = [(e.sigma, e.sample_rate, e.steps) for e in spent]
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the orders with which it sizes its grid
            epsilon = float(accountant.get_epsilon(delta, eps_error=_prv_error(bound)))
    except (ArithmeticError, RuntimeError, ValueError, MemoryError):  # its own checks of its arithmetic
        return None
    return epsilon if math.isfinite(epsilon) and epsilon >= 0 else None


def final_epsilon(entries: Iterable[Entry], delta: float) -> tuple[float, str]:
    """The smallest epsilon that can be proved here, and the accountant that proves it.

    Raises:
        ValueError: delta outside (0, 1).
    """
    spent = merge(entries)
    if all(e.sample_rate == 1 for e in spent):
        noiseless = any(e.sigma == 0 for e in spent)
        mu = math.inf if noiseless else math.sqrt(sum(e.steps / e.sigma**2 for e in spent))
        return gaussian_epsilon(mu, delta), EXACT
    rdp, prv = rdp_epsilon(spent, delta), prv_epsilon(spent, delta)
    return (rdp, RDP) if prv is None or rdp < prv else (prv, PRV)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of Gaussian releases without sampling (Balle and Wang 2018, theorem 8).

    Args:
        mu: distance of the two output distributions in deviations. Releases compose to
            mu = sqrt(sum over releases of 1 / sigma^2) (Dong, Roth, Su, arXiv 1905.02383, corollary 2).
        delta: in (0, 1).

    Raises:
        ValueError: mu negative or delta outside (0, 1).
    """
    _check_delta(delta)
    if not mu >= 0:
        raise ValueError(f"mu={mu}: must be at least 0.")
    if mu == 0:
        return 0.0
    if mu == math.inf:
        return math.inf

    def excess(epsilon: float) -> float:
        first = log_ndtr(mu / 2 - epsilon / mu)
        second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
        return float(first + np.log(-np.expm1(min(second - first, -1e-300))) - math.log(delta))

    if excess(0.0) <= 0:
        return 0.0
    # Dropping the second term bounds delta from above: Phi(mu/2 - eps/mu) <= exp(-(eps/mu - mu/2)^2 / 2).
    upper = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    return float(brentq(excess, 0.0, upper, xtol=1e-12, rtol=1e-14))


def find_sigma(
    target: float, delta: float, sample_rate: float, steps: int, spent: Iterable[Entry] = ()
) -> float:
    """The smallest noise multiplier that keeps `steps` more releases, on top of `spent`, within the target.

    Accounted by RDP and found to 0.1 %, on the safe side: the result's epsilon never exceeds the target.

    Args:
        target: epsilon at `delta` that may be spent in all.
        delta: in (0, 1).
        sample_rate: q of the planned releases, in (0, 1].
        steps: planned releases, at least 1.
        spent: what has been released already.

    Raises:
        BudgetError: what is spent leaves nothing, or the target is below what this accountant can certify.
        ValueError: a value out of range.
    """
    if not target > 0 or not sample_rate > 0 or steps < 1:
        raise ValueError(
            f"target={target}, sample_rate={sample_rate}, steps={steps}: all must be positive, or there is nothing "
            "to find."
        )
    spent = merge(spent)
    before = rdp_epsilon(spent, delta)

    def fits(sigma: float) -> bool:
        return rdp_epsilon([*spent, Entry(sigma, sample_rate, steps)], delta) <= target

    high = 1.0
    while not fits(high):
        high *= 2
        if before >= target or high > SIGMA_LIMIT:
            raise BudgetError(
                f"No noise keeps {steps} more steps within epsilon {target:g} at delta {delta:g}: "
                f"{before:.4g} is spent already, and {_floor(delta):.2g} is the least that can be certified."
            )
    low = high / 2
    while high < 2 and low > 1e-3 and fits(low):  # small noise is enough only for large targets
        high, low = low, low / 2
    while high / low > 1 + SIGMA_TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _prv_error(bound: float) -> float:
    return min(0.01, max(0.001, 0.004 * bound))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}: must lie in (0, 1).")


def _rdp(spent: Iterable[Entry]) -> np.ndarray:
    total = np.zeros(len(ORDERS))
    for e in spent:
        total = total + e.steps * np.array(_rdp_of_one(e.sigma, e.sample_rate))
    return total


@functools.lru_cache(maxsize=256)
def _rdp_of_one(sigma: float, sample_rate: float) -> tuple[float, ...]:
    """RDP of one release at every order; infinite where Opacus's arithmetic overflows, which drops the order."""
    from_opacus = _opacus().accountants.analysis.rdp.compute_rdp
    values = []
    for order in ORDERS:
        try:
            value = float(from_opacus(q=sample_rate, noise_multiplier=sigma, steps=1, orders=float(order)))
        except (ArithmeticError, ValueError):
            value = math.inf
        values.append(value if value >= 0 else math.inf)
    return tuple(values)


def _converted(rdp: np.ndarray, delta: float) -> float:
    orders = np.array(ORDERS, dtype=float)
    epsilon = rdp - (math.log(delta) + np.log(orders)) / (orders - 1) + np.log1p(-1 / orders)
    return max(0.0, float(epsilon.min()))


def _floor(delta: float) -> float:
    return _converted(np.zeros(len(ORDERS)), delta)


@functools.cache
def _opacus() -> ModuleType:
    """Opacus, imported late because it takes seconds, and without the handler it puts on the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    opacus = importlib.import_module("opacus")
    importlib.import_module("opacus.accountants.analysis.rdp")
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)
    return opacus

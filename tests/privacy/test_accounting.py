from __future__ import annotations

import importlib
import itertools
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from fedbrats.privacy.accounting import (
    EXACT,
    ORDERS,
    PRV,
    RDP,
    Entry,
    _opacus,
    _rdp_of_one,
    final_epsilon,
    gaussian_epsilon,
    merge,
    prv_epsilon,
    rdp_epsilon,
)

DELTA = 1e-5
THIRTY = [Entry(1.0, 0.125, 400)]  # a site of 30 patients, 4 a step, 50 rounds of one pass


# entries


def test_equal_entries_are_summed_in_order_of_appearance_and_those_without_release_left_out() -> None:
    a, b = Entry(1.0, 0.5, 3), Entry(2.0, 0.5, 1)
    nothing = [Entry(1.0, 0.0, 5), Entry(3.0, 0.5, 0)]
    assert merge([b, a, *nothing, b, a, Entry(1.0, 0.25, 1)]) == [
        Entry(2.0, 0.5, 2),
        Entry(1.0, 0.5, 6),
        Entry(1.0, 0.25, 1),
    ]


def test_an_entry_holds_plain_numbers() -> None:
    entry = Entry(np.float32(0.5), np.float64(0.25), np.int64(3))  # type: ignore[arg-type]
    assert [type(v) for v in (entry.sigma, entry.sample_rate, entry.steps)] == [float, float, int]


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ((-0.1, 0.5, 1), "sigma"),
        ((math.nan, 0.5, 1), "sigma"),
        ((math.inf, 0.5, 1), "sigma"),
        ((1.0, 1.01, 1), "sample_rate"),
        ((1.0, -0.1, 1), "sample_rate"),
        ((1.0, math.nan, 1), "sample_rate"),
        ((1.0, 0.5, -1), "steps"),
        ((1.0, 0.5, 1.5), "steps"),
        ((1.0, 0.5, True), "steps"),
    ],
)
def test_an_entry_out_of_range_is_refused(values: tuple[float, float, int], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}="):
        Entry(*values)


# without sampling: the exact value


@pytest.mark.parametrize(
    ("sigma", "steps", "epsilon"),
    [(1, 1, 4.3772), (5, 50, 6.5730), (20, 400, 4.3772), (2, 400, 91.817)],
)
def test_exact_epsilon_of_the_gaussian_mechanism(sigma: float, steps: int, epsilon: float) -> None:
    assert gaussian_epsilon(math.sqrt(steps) / sigma, DELTA) == pytest.approx(epsilon, rel=1e-5)
    assert final_epsilon([Entry(sigma, 1, steps)], DELTA) == (pytest.approx(epsilon, rel=1e-5), EXACT)


@pytest.mark.parametrize("mu", [1e-4, 0.01, 0.3, 1.0, 3.0, 7.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.03])
def test_exact_epsilon_spends_exactly_delta(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    spent = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    if epsilon == 0:
        assert 2 * norm.cdf(mu / 2) - 1 <= delta
    else:
        assert spent == pytest.approx(delta, rel=1e-6)


def test_exact_epsilon_at_the_ends() -> None:
    assert gaussian_epsilon(0.0, DELTA) == 0.0
    assert gaussian_epsilon(math.inf, DELTA) == math.inf
    assert gaussian_epsilon(1e-6, DELTA) == 0.0  # delta alone covers it
    # mu^2 / 2 is the mean of the privacy loss, mu its deviation, 4.2649 the quantile of 1e-5
    assert gaussian_epsilon(1e4, DELTA) == pytest.approx(5e7 + 4.2649e4, rel=1e-6)
    with pytest.raises(ValueError, match="mu"):
        gaussian_epsilon(-1.0, DELTA)
    with pytest.raises(ValueError, match="mu"):
        gaussian_epsilon(math.nan, DELTA)


def test_exact_epsilon_of_unequal_releases_adds_squares() -> None:
    entries = [Entry(3.0, 1.0, 9), Entry(4.0, 1.0, 16)]
    assert final_epsilon(entries, DELTA)[0] == pytest.approx(gaussian_epsilon(math.sqrt(2), DELTA))


# with sampling: other people's numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "delta", "rdp", "prv"),
    [
        (0.5, 1 / 30, 61.68, 53.04),
        (0.5, 1e-5, 93.12, 86.07),
        (1.0, 1 / 30, 11.69, 9.69),
        (1.0, 1e-3, 16.08, 14.31),
        (1.0, 1e-5, 20.51, 18.87),
        (2.0, 1 / 30, 3.39, 2.72),
        (2.0, 1e-5, 6.88, 6.35),
        (4.0, 1e-5, 2.89, 2.67),
    ],
)
def test_a_site_of_thirty_patients_costs_what_opacus_says(
    sigma: float, delta: float, rdp: float, prv: float
) -> None:
    entries = [Entry(sigma, 0.125, 400)]
    assert rdp_epsilon(entries, delta) == pytest.approx(rdp, abs=0.006)
    assert prv_epsilon(entries, delta) == pytest.approx(prv, abs=0.006)
    assert final_epsilon(entries, delta) == (pytest.approx(prv, abs=0.006), PRV)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(1.0, 0.125, 400), (2.0, 0.5, 100), (1.1, 0.004, 9000)])
def test_rdp_is_that_of_opacus(sigma: float, rate: float, steps: int) -> None:
    accountant = _opacus().accountants.RDPAccountant()
    accountant.history = [(sigma, rate, steps)]
    assert rdp_epsilon([Entry(sigma, rate, steps)], DELTA) == pytest.approx(
        accountant.get_epsilon(DELTA), rel=1e-12
    )


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "moments", "epsilon"),
    [
        (4.0, 0.01, 10_000, 1.26, 1.0355),  # Abadi et al. 2016; its moments accountant is looser
        (1.1, 256 / 60_000, 14_062, 2.92, 2.5966),  # tutorial of TF-Privacy, MNIST, 60 epochs
    ],
)
def test_rows_of_the_literature(
    sigma: float, rate: float, steps: int, moments: float, epsilon: float
) -> None:
    entries = [Entry(sigma, rate, steps)]
    assert rdp_epsilon(entries, DELTA) == pytest.approx(epsilon, abs=1e-4)
    assert 0.85 * epsilon < final_epsilon(entries, DELTA)[0] < epsilon < moments


def test_delta_of_the_fourier_accountant() -> None:
    # Koskela, Jaelkoe, Honkela, README of PLD-Accountant: delta(1) = 4.24348e-6
    assert final_epsilon([Entry(4.0, 0.01, 10_000)], 4.24348e-6)[0] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(("sigma", "rate"), [(0.5, 0.125), (2.0, 0.5), (1.0, 0.01)])
@pytest.mark.parametrize("order", [1.01, 1.05, 1.5, 5.5, 32, 72])
def test_renyi_divergence_of_one_release_by_quadrature(sigma: float, rate: float, order: float) -> None:
    def density(x: float) -> float:
        log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * sigma**2))
        return math.exp(norm.logpdf(x, scale=sigma) + order * log_ratio - shift)

    shift = order * (order - 1) / (2 * sigma**2)  # near the logarithm of the largest value
    peaks = [-10 * sigma, 0.0, 1.0, order, order + 10 * sigma]
    integral = sum(quad(density, a, b, epsabs=0, limit=200)[0] for a, b in itertools.pairwise(peaks))
    expected = (math.log(integral) + shift) / (order - 1)
    assert _rdp_of_one(sigma, rate)[ORDERS.index(order)] == pytest.approx(expected, rel=1e-5)


# guards


def test_nothing_spent_is_zero() -> None:
    for nothing in ([], [Entry(1.0, 0.5, 0)], [Entry(0.0, 0.0, 3)]):
        assert rdp_epsilon(nothing, DELTA) == 0.0
        assert prv_epsilon(nothing, DELTA) == 0.0
        assert final_epsilon(nothing, DELTA)[0] == 0.0


@pytest.mark.parametrize("rate", [0.125, 1.0])
def test_one_release_without_noise_is_infinite(rate: float) -> None:
    entries = [*THIRTY, Entry(0.0, rate, 1)]
    assert rdp_epsilon(entries, DELTA) == math.inf
    assert prv_epsilon(entries, DELTA) is None
    assert final_epsilon(entries, DELTA) == (math.inf, RDP)
    assert final_epsilon([Entry(0.0, 1.0, 1)], DELTA) == (math.inf, EXACT)


def test_prv_is_left_out_where_its_grid_would_not_fit_into_memory() -> None:
    entries = [Entry(0.4, 0.5, 1000)]
    rdp = rdp_epsilon(entries, DELTA)
    assert 500 < rdp < math.inf
    assert prv_epsilon(entries, DELTA) is None
    assert final_epsilon(entries, DELTA) == (rdp, RDP)


def test_prv_is_left_out_for_a_history_of_many_kinds() -> None:
    kinds = [Entry(4 + i / 10, 0.125, 1) for i in range(21)]
    assert prv_epsilon(kinds, DELTA) is None
    assert final_epsilon(kinds, DELTA) == (rdp_epsilon(kinds, DELTA), RDP)
    assert prv_epsilon([Entry(4.0, 0.125, 1)] * 21, DELTA) is not None


def test_where_opacus_gives_up_rdp_remains() -> None:
    entries = [Entry(0.3, 0.01, 1)]  # at this delta the true value is 0, which its search does not find
    assert prv_epsilon(entries, 1 / 30) is None
    assert final_epsilon(entries, 1 / 30) == (rdp_epsilon(entries, 1 / 30), RDP)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    for function in (rdp_epsilon, prv_epsilon, final_epsilon):
        with pytest.raises(ValueError, match="delta"):
            function([], delta)
    with pytest.raises(ValueError, match="delta"):
        gaussian_epsilon(1.0, delta)


def test_a_longer_history_never_costs_less() -> None:
    costs = [rdp_epsilon([Entry(1.0, 0.125, 8 * rounds)], DELTA) for rounds in range(1, 51)]
    assert costs == sorted(costs)
    split = [Entry(1.0, 0.125, 8)] * 50
    assert rdp_epsilon(split, DELTA) == costs[-1]
    assert final_epsilon(split, DELTA) == final_epsilon(THIRTY, DELTA)


def test_large_noise_is_not_overcharged() -> None:
    # Opacus's largest order, 63, cannot certify less than 0.16 at this delta.
    assert rdp_epsilon([Entry(50.0, 0.01, 1)], DELTA) < 0.01


# Opacus in the house

GUEST = """
import logging, sys
from fedbrats.privacy.accounting import Entry, final_epsilon
assert "opacus" not in sys.modules, "imported early"
print(final_epsilon([Entry(50.0, 0.01, 1)], 1e-5)[1])
assert "opacus" in sys.modules
assert logging.getLogger().handlers == [], logging.getLogger().handlers
"""


@pytest.mark.slow
def test_opacus_comes_late_and_leaves_no_noise() -> None:
    done = subprocess.run([sys.executable, "-c", GUEST], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "PRV\n", "")


def test_only_what_opacus_did_to_the_root_logger_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    root, ours = logging.getLogger(), logging.NullHandler()
    root.addHandler(ours)
    before = root.handlers[:], root.level

    def imported(name: str) -> None:
        root.addHandler(logging.NullHandler())
        root.setLevel(logging.CRITICAL)

    try:
        monkeypatch.setattr(importlib, "import_module", imported)
        _opacus.__wrapped__()
        assert (root.handlers, root.level) == before
    finally:
        root.removeHandler(ours)

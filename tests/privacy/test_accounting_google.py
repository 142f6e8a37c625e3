"""Epsilon against Google's dp-accounting, which looks at units added and removed, Opacus's PRV only at one."""

from __future__ import annotations

import pytest

from fedbrats.privacy.accounting import PRV, Entry, final_epsilon, prv_epsilon, rdp_epsilon

DELTA = 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "delta"),
    [
        (0.5, 0.125, 400, 1e-5),
        (1.0, 0.125, 400, 1 / 30),
        (1.0, 0.125, 400, 1e-5),
        (2.0, 0.125, 400, 1e-5),
        (4.0, 0.125, 400, 1e-5),
        (1.0, 4 / 30, 400, 1e-5),
        (2.0, 0.5, 100, 1e-5),  # 8 patients
        (1.0, 8 / 15, 200, 1e-5),
        (4.0, 4 / 500, 6250, 1e-5),  # 500 patients
        (4.0, 0.01, 10_000, 1e-5),
    ],
)
def test_prv_agrees_with_googles_pld_to_one_percent(
    sigma: float, rate: float, steps: int, delta: float
) -> None:
    dp = pytest.importorskip("dp_accounting")
    pld = pytest.importorskip("dp_accounting.pld")
    accountant = pld.PLDAccountant()
    accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), steps)
    theirs, ours = accountant.get_epsilon(delta), prv_epsilon([Entry(sigma, rate, steps)], delta)
    assert ours is not None
    assert theirs * 0.9999 <= ours <= theirs * 1.01


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "delta"),
    # Not sigma = 0.5: there Google drops the orders below 2, whose series it does not finish (142.3 against 93.1 at
    # delta 1e-5), and for the same reason not sigma = 1 at delta 1/30 (12.61 against 11.69) nor 100 steps of sigma = 2
    # and q = 1/2 (15.73 against 15.39).
    [
        (1.0, 0.125, 400, 1e-5),
        (2.0, 0.125, 400, 1e-5),
        (4.0, 0.125, 400, 1e-5),
        (4.0, 0.5, 100, 1e-5),
        (4.0, 0.01, 10_000, 1e-5),
        (1.1, 256 / 60_000, 14_062, 1e-5),
        (2.0, 1.0, 50, 1e-5),
    ],
)
def test_rdp_agrees_with_googles_to_one_percent(sigma: float, rate: float, steps: int, delta: float) -> None:
    dp = pytest.importorskip("dp_accounting")
    rdp = pytest.importorskip("dp_accounting.rdp")
    accountant = rdp.RdpAccountant()
    accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), steps)
    assert rdp_epsilon([Entry(sigma, rate, steps)], delta) == pytest.approx(
        accountant.get_epsilon(delta), rel=0.01
    )


@pytest.mark.slow
def test_a_mixed_history_agrees_with_googles() -> None:
    dp = pytest.importorskip("dp_accounting")
    pld = pytest.importorskip("dp_accounting.pld")
    entries = [Entry(1.0, 0.125, 80), Entry(2.0, 0.25, 100), Entry(4.0, 1.0, 3)]
    accountant = pld.PLDAccountant()
    for e in entries:
        accountant.compose(dp.PoissonSampledDpEvent(e.sample_rate, dp.GaussianDpEvent(e.sigma)), e.steps)
    epsilon, name = final_epsilon(entries, DELTA)
    assert epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=0.01)
    assert name == PRV

"""The checks of who is drawn, of noise sources and of the ledger find every planted mistake, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.audit.accounts import (
    epsilon_again,
    ledger_covers,
    noise_sources,
    reserved_first,
    sampling,
)
from fedbrats.privacy.accounting import Entry, final_epsilon, rdp_epsilon
from fedbrats.privacy.ledger import Ledger
from fedbrats.privacy.noise import SecretNumbers, secret_numbers
from fedbrats.privacy.sampler import draw_patients

ENTRY = Entry(1.0, 0.25, 8)


def _sampling_failures(draw: object, count: int = 20, rate: float = 0.2) -> set[str]:
    found: set[str] = set()
    for seed in range(3):
        checks = sampling(count, rate, secret_numbers(seed), draw)  # type: ignore[arg-type]
        found |= {check.name for check in checks if not check.passed}
    return found


@pytest.mark.parametrize(("count", "rate"), [(20, 0.2), (3, 0.9), (5, 1.0), (60, 0.01), (1, 0.5)])
def test_the_sampler_passes(count: int, rate: float) -> None:
    assert _sampling_failures(draw_patients, count, rate) == set()


def test_what_surprises_once_is_drawn_again_and_nobody_drawn_twice_is_forgotten() -> None:
    calls = iter(range(10_000))

    def unlucky(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        call = next(calls)
        found = draw_patients(count, rate if call >= 500 else 1.5 * rate, secret)
        return [0, 0] if call == 7 else found

    checks = {check.name: check for check in sampling(20, 0.2, secret_numbers(0), unlucky, runs=500)}
    assert next(calls) == 1000
    assert [name for name, check in checks.items() if not check.passed] == ["drawn twice"]
    assert checks["drawn twice"].measured == 1


def test_wrong_samplers_are_found() -> None:
    def fixed(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        """Always the same number, as a shuffled loader has it."""
        return secret.uniform(count).argsort()[: int(count * rate)].tolist()

    def too_often(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        return draw_patients(count, 1.15 * rate, secret)

    def favourite(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        return sorted({0, *draw_patients(count, rate, secret)})

    def couples(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        return [i for pair in draw_patients(count // 2, rate, secret) for i in (2 * pair, 2 * pair + 1)]

    def doubled(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        drawn = draw_patients(count, rate, secret)
        return drawn + drawn[:1]

    kept: list[list[int]] = []

    def same_again(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        kept.append(draw_patients(count, rate, secret) if len(kept) % 2 == 0 else kept[-1])
        return kept[-1]

    def never_nobody(count: int, rate: float, secret: SecretNumbers) -> list[int]:
        return draw_patients(count, rate, secret) or never_nobody(count, rate, secret)

    assert "independent sampling" in _sampling_failures(fixed)
    assert "sampling rate" in _sampling_failures(too_often)
    assert "sampling rate" in _sampling_failures(favourite)
    assert "independent sampling" in _sampling_failures(couples)
    assert "drawn twice" in _sampling_failures(doubled)
    assert "independent sampling" in _sampling_failures(same_again)
    assert "independent sampling" in _sampling_failures(never_nobody, 10, 0.2)


def test_noise_of_sites_and_rounds_must_differ() -> None:
    def named(*sites: str) -> list[SecretNumbers]:
        return [secret_numbers(7, site, round_) for site in sites for round_ in (1, 2)]

    assert noise_sources(named("A", "B", "C")).passed
    assert noise_sources([secret_numbers() for _ in range(4)]).passed
    assert not noise_sources(named("A", "B", "A")).passed
    assert not noise_sources([secret_numbers(3) for _ in range(2)]).passed


def test_a_round_must_be_in_the_ledger_before_it_begins(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json", "A")
    ledger.reserve(ENTRY, run="before", round_=1)  # of an earlier round, which pays for nothing now

    def right(watch: object) -> None:
        ledger.reserve(ENTRY, run="r", round_=2)
        watch()  # type: ignore[operator]

    def late(watch: object) -> None:
        watch()  # type: ignore[operator]
        ledger.reserve(ENTRY, run="r", round_=2)

    def too_little(watch: object) -> None:
        ledger.reserve(Entry(1.0, 0.25, 7), run="r", round_=2)
        watch()  # type: ignore[operator]

    def other_noise(watch: object) -> None:
        ledger.reserve(Entry(2.0, 0.25, 8), run="r", round_=2)
        watch()  # type: ignore[operator]

    def never(watch: object) -> None:
        pass

    assert reserved_first(ledger.entries, right, ENTRY).passed
    for wrong, lacking in ((late, 8), (too_little, 1), (other_noise, 8), (never, 8)):
        check = reserved_first(ledger.entries, wrong, ENTRY)
        assert not check.passed
        assert check.measured == lacking


def test_the_ledger_holds_what_is_reported() -> None:
    history = [ENTRY, Entry(2.0, 0.25, 4), ENTRY]
    assert ledger_covers("A", history, [*history, ENTRY]).passed
    assert ledger_covers("A", history, history[:2]).measured == 8
    assert ledger_covers("A", history, [Entry(2.0, 0.5, 100), ENTRY, ENTRY]).measured == 4
    assert not ledger_covers("A", history, []).passed


@pytest.mark.slow
def test_epsilon_is_computed_again_from_the_history() -> None:
    history = [Entry(1.0, 0.125, 400)]
    epsilon, rdp = final_epsilon(history, 1e-5)[0], rdp_epsilon(history, 1e-5)
    assert epsilon == pytest.approx(
        18.87, abs=0.02
    )  # another tool's number: Opacus PRV, N = 30, batch 4, 50 rounds
    assert epsilon_again("A", history, 1e-5, epsilon, rdp).passed
    assert epsilon_again("A", history, 1e-5, epsilon * (1 + 1e-9), rdp * (1 - 1e-9)).passed
    assert not epsilon_again("A", history, 1e-5, 0.95 * epsilon, rdp).passed
    assert not epsilon_again("A", history, 1e-5, epsilon, 0.95 * rdp).passed
    assert not epsilon_again("A", history, 1e-5, 1.05 * epsilon, rdp).passed
    assert not epsilon_again("A", history, 1e-6, epsilon, rdp).passed
    one_round = rdp_epsilon([Entry(1.0, 0.125, 8)], 1e-5)
    assert not epsilon_again("A", history, 1e-5, one_round, one_round).passed
    assert epsilon_again("A", [], 1e-5, 0.0, 0.0).passed
    assert not epsilon_again("A", history, 1e-5, 0.0, 0.0).passed

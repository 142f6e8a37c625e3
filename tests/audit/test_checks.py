"""The checks find every planted mistake, by name, and leave the right step alone, in whatever seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedbrats.audit.accounts import (
    epsilon_again,
    ledger_covers,
    noise_sources,
    reserved_first,
    sampling,
)
from fedbrats.audit.step import Subject, step_checks
from fedbrats.losses.compound import DiceCE
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.privacy.accounting import Entry, final_epsilon, rdp_epsilon
from fedbrats.privacy.ledger import Ledger
from fedbrats.privacy.mechanism import Batch, PrivateStep
from fedbrats.privacy.noise import SecretNumbers, secret_numbers
from fedbrats.privacy.sampler import draw_patients
from tests.audit import planted

ENTRY = Entry(1.0, 0.25, 8)


class Small(nn.Module):
    """Two 3D convolutions, a norm over each sample, dropout and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(4, 6, 3, padding=1), nn.GroupNorm(2, 6)
        self.drop, self.last = nn.Dropout(0.5), nn.Conv3d(6, 3, 1)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(images)))))


def values(outputs: Tensor, labels: Tensor) -> Tensor:
    return deep_supervised(DiceCE(), outputs, labels)


def subject(
    seed: int = 0, make: type[PrivateStep] = PrivateStep, network: nn.Module | None = None, **changes: object
) -> Subject:
    torch.manual_seed(seed)
    patients: list[Batch] = [
        (torch.randn(2, 4, 8, 8, 8), torch.randint(0, 4, (2, 8, 8, 8)).to(torch.uint8)) for _ in range(3)
    ]
    count = iter(range(1000))
    settings = {"clip": 0.7, "sigma": 1.3, "expected": 2.5} | changes
    return Subject(
        make=make,
        network=network or Small(),
        values=values,
        patients=patients,
        noise=lambda: secret_numbers(seed, next(count)),
        **settings,  # type: ignore[arg-type]
    )


def failed(made: Subject) -> set[str]:
    return {check.name for check in step_checks(made) if not check.passed}


@pytest.mark.parametrize("engine", ["microbatch", "vmap"])
def test_the_right_step_passes_in_every_seed(engine: str) -> None:
    for seed in range(6):
        assert failed(subject(seed, engine=engine, chunk=2)) == set()


def test_the_right_step_passes_with_secret_noise_and_bounds_of_any_size() -> None:
    for clip in (1e-3, 50.0):
        made = subject(clip=clip, expected=0.4)
        object.__setattr__(made, "noise", lambda: secret_numbers())
        assert failed(made) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "found_by"),
    [
        (planted.PatchAsUnit, {"patches", "sensitivity", "clipping"}),
        (planted.NoClipping, {"patches", "sensitivity", "clipping"}),
        (planted.BatchClipped, {"sensitivity", "clipping"}),
        (planted.SumClipped, {"clipping"}),
        (planted.SameNoiseEveryStep, {"fresh noise"}),
        (planted.NoiseInTheFirstStep, {"fresh noise"}),
        (planted.DividedByDrawn, {"divisor"}),
        (planted.DividedByDrawnIfAlone, {"divisor"}),
        (planted.NoiseWithoutBound, {"noise, nobody drawn", "noise, patients drawn", "noise everywhere"}),
        (planted.NoiseDividedTwice, {"noise, nobody drawn", "noise, patients drawn", "noise everywhere"}),
        (planted.NothingWhenNobody, {"noise, nobody drawn", "noise everywhere", "fresh noise"}),
        (planted.OneArrayWithoutNoise, {"noise everywhere"}),
        (planted.NoiseForEachPatient, {"noise, patients drawn"}),
        (planted.Halved, {"clipping"}),
        (planted.Counting, {"buffers"}),
    ],
)
def test_a_planted_mistake_is_found(make: type[PrivateStep], found_by: set[str]) -> None:
    for seed in range(2):
        found = failed(subject(seed, make))
        assert found_by <= found, f"{make.__name__}: found by {found}"


def test_one_buffer_of_two_is_found() -> None:
    network = Small()
    network.register_buffer("still", torch.zeros(3))
    assert len(list(network.buffers())) >= 2
    assert failed(subject(make=planted.CountingInOne, network=network)) == {"buffers"}


def test_running_statistics_are_found() -> None:
    batch_norm = nn.Sequential(nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6), nn.Conv3d(6, 3, 1, padding=1))
    assert "buffers" in failed(subject(network=batch_norm))


def test_measured_figures_are_what_they_say() -> None:
    """Without clipping, three patients with the same gradient g of length 10 C: leaving one out moves the sum by g."""
    made = subject(make=planted.NoClipping)
    checks = {check.name: check for check in step_checks(made)}
    assert checks["sensitivity"].bound == pytest.approx(0.7, rel=0.01)
    loud = made.loud()
    shortest = min(float(loud.alone(patient).norm()) for patient in loud.patients)
    assert shortest >= 10 * 4 * 0.7 * 0.999
    images, labels = loud.patients[0]
    longest = max(float(loud.alone(p).norm()) for p in [(100 * images, labels), *loud.patients[1:]])
    assert checks["sensitivity"].measured == pytest.approx(longest, rel=1e-3)
    assert checks["noise, nobody drawn"].bound == pytest.approx(4 / (2 * 687) ** 0.5)
    assert sum(p.numel() for p in made.trained) == 687


def test_a_factor_of_two_in_the_noise_is_told_apart() -> None:
    """On 687 parameters chance explains 11 % of the deviation and no more."""

    class TwentyPercentLess(PrivateStep):
        def add_noise(self, total: list[Tensor]) -> None:
            sigma, self.sigma = self.sigma, 0.8 * self.sigma
            super().add_noise(total)
            self.sigma = sigma

    assert "noise, nobody drawn" in failed(subject(make=TwentyPercentLess))


def test_the_network_under_audit_is_left_as_it_was() -> None:
    network = Small().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step_checks(subject(network=network))
    assert not network.training
    assert network.drop.p == 0.5
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_an_audit_needs_two_patients_and_noise() -> None:
    made = subject()
    with pytest.raises(ValueError, match="1 patients"):
        Subject(
            network=made.network,
            values=values,
            patients=made.patients[:1],
            noise=made.noise,
            clip=1.0,
            sigma=1.0,
            expected=1.0,
        )
    with pytest.raises(ValueError, match="no noise"):
        subject(sigma=0.0)


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

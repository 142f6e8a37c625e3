"""The checks find every planted mistake, by name, and leave the right step alone, in whatever seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedbrats.audit.step import Subject, step_checks
from fedbrats.losses.compound import DiceCE
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.privacy.mechanism import Batch, PrivateStep
from fedbrats.privacy.noise import secret_numbers
from tests.audit import planted


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

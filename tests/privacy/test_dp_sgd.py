"""Settings of patient-level privacy, and the steps around the mechanism."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbrats.algorithms.fedprox import proximal
from fedbrats.config.schema import TrainConfig
from fedbrats.config.targets import ConfigError
from fedbrats.privacy.dp_sgd import (
    DpSgd,
    PrivacyError,
    check_sites,
    poisson_draws,
    private_steps,
    train_privately,
)
from fedbrats.privacy.mechanism import PrivateStep
from fedbrats.privacy.noise import secret_numbers


def settings(**changed: Any) -> DpSgd:
    return DpSgd(**{"sigma": 1.0, **changed})


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"target_epsilon": 3.0}, "privacy.sigma and privacy.target_epsilon exclude"),
        ({"sigma": None}, "privacy.sigma and privacy.target_epsilon exclude"),
        ({"sigma": 0.0}, "privacy.sigma=0.0"),
        ({"sigma": float("inf")}, "privacy.sigma=inf"),
        ({"clip": -1.0}, "privacy.clip"),
        ({"delta": 1.0}, "privacy.delta"),
        ({"delta": 0.0}, "privacy.delta"),
        ({"expected_patients": 0}, "privacy.expected_patients"),
        ({"patches": 0}, "privacy.patches"),
        ({"chunk": 0}, "privacy.chunk"),
        ({"max_epsilon": 0.0}, "privacy.max_epsilon"),
        ({"engine": "ghost"}, "privacy.engine=ghost: choose one of microbatch, vmap"),
        ({"validation": "maybe"}, "privacy.validation=maybe"),
        ({"validation": "noisy"}, "privacy.validation_sigma"),
        ({"validation_sigma": 1.0}, "privacy.validation_sigma"),
        ({"validation": "noisy", "validation_sigma": 0.0}, "privacy.validation_sigma=0.0"),
        ({"public": ["everything"]}, "only histogram, thresholds"),
        ({"sites": {"A": {"delta": 0.1}}}, "privacy.sites.A"),
        ({"sites": {"A": {"clip": 0}}}, "privacy.clip=0"),
    ],
)
def test_values_out_of_range_are_named(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        settings(**changed)


def test_one_patch_and_one_patient_at_a_time_and_little_noise_are_enough() -> None:
    assert settings(validation="noisy", validation_sigma=0.5, validation_epsilon=9).validation_sigma == 0.5
    assert (settings(patches=1).patches, settings(chunk=1).chunk) == (1, 1)


def test_a_site_has_its_own_values_and_the_common_rest() -> None:
    common = settings(clip=0.5, sites={"A": {"target_epsilon": 3.0}, "B": {"sigma": 2.0, "max_epsilon": 9.0}})
    assert (common.of("A").sigma, common.of("A").budget, common.of("A").clip) == (None, 3.0, 0.5)
    assert (common.of("B").sigma, common.of("B").budget) == (2.0, 9.0)
    assert (common.of("C").sigma, common.of("C").budget) == (1.0, None)
    targeted = DpSgd(target_epsilon=8.0, sites={"B": {"sigma": 2.0}})
    assert (targeted.of("B").sigma, targeted.of("B").target_epsilon) == (2.0, None)


def test_the_rate_is_public_and_never_above_one() -> None:
    assert settings(expected_patients=4).sample_rate(30) == pytest.approx(4 / 30)
    assert settings(expected_patients=4).sample_rate(3) == 1.0


def test_an_epoch_is_one_over_q_steps() -> None:
    private = settings(expected_patients=4, sites={"B": {"expected_patients": 15}})
    assert private_steps("A", 30, TrainConfig(local_epochs=1), private) == 8  # 7.5
    assert private_steps("A", 32, TrainConfig(local_epochs=1), private) == 8
    assert private_steps("B", 30, TrainConfig(local_epochs=1), private) == 2
    assert private_steps("A", 3, TrainConfig(local_epochs=2), private) == 2
    assert private_steps("A", 30, TrainConfig(local_steps=5), private) == 5
    assert private_steps("A", 30, TrainConfig(local_steps=5, site_steps={"A": 3}), private) == 3
    assert private_steps("A", 32, TrainConfig(local_steps=5, site_epochs={"A": 0.5}), private) == 4


def test_delta_must_be_below_one_patient_everywhere() -> None:
    check_sites(settings(delta=0.24), {"A": 4, "B": 3}, ["A", "B"])
    with pytest.raises(ConfigError, match=r"below 1/N = 0.25 at site A \(N = 4\)"):
        check_sites(settings(delta=0.25), {"A": 4, "B": 3}, ["A", "B"])
    with pytest.raises(ConfigError, match=r"\['Z'\]"):
        check_sites(settings(sites={"Z": {"clip": 2.0}}), {"A": 4}, ["A"])


def step_of(network: nn.Module, sigma: float = 0.0) -> PrivateStep:
    def values(outputs: Tensor, labels: Tensor) -> Tensor:
        return ((outputs - labels) ** 2).flatten(1).mean(dim=1)

    noise = secret_numbers(0)
    return PrivateStep(network, values, clip=1e9, sigma=sigma, expected=2.0, noise=noise)


def patient(value: float) -> tuple[Tensor, Tensor]:
    return torch.full((1, 1, 2, 2, 2), value), torch.zeros(1, 1, 2, 2, 2)


def test_a_penalty_is_added_after_clipping_and_whole() -> None:
    """Gradient by hand: (clipped sum) / 2 + mu (w - anchor), the penalty neither clipped nor divided."""
    network = nn.Conv3d(1, 1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(3.0)
    pull = proximal(network, 0.5)
    with torch.no_grad():
        network.weight.fill_(5.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    done = train_privately(network, optimizer, step_of(network), [iter([patient(1.0)])], pull)
    data = 2 * 5.0 / 2  # d/dw (w x)^2 at x = 1, one patient of two expected
    assert float(network.weight.detach()) == pytest.approx(5.0 - 0.1 * (data + 0.5 * 2.0))
    assert [drawn.patients for drawn in done] == [1]


def test_an_empty_draw_still_moves_by_noise() -> None:
    network = nn.Conv3d(1, 1, 1, bias=False).eval()
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9)
    done = train_privately(network, optimizer, step_of(network, sigma=1.0), [iter([])], None)
    assert not torch.equal(before, network.weight.detach())
    assert done[0].patients == 0
    assert network.training


def test_a_network_that_remembers_patients_elsewhere_is_caught() -> None:
    class Keeps(nn.Conv3d):
        def __init__(self) -> None:
            super().__init__(1, 1, 1)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            self.seen += images.mean()
            return super().forward(images)

    network = Keeps()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(PrivacyError, match="seen changed"):
        train_privately(network, optimizer, step_of(network), [iter([patient(1.0)])], None)


def test_draws_are_poisson_and_lazy() -> None:
    asked: list[int] = []

    def draw(index: int) -> tuple[Tensor, Tensor]:
        asked.append(index)
        return patient(float(index))

    steps = list(poisson_draws(200, 10, 0.3, secret_numbers(1), draw))
    assert len(steps) == 200
    assert asked == []
    sizes = [sum(1 for _ in step) for step in steps]
    assert 2.5 < sum(sizes) / 200 < 3.5
    assert len(set(sizes)) > 3  # not batches of one size
    assert set(asked) == set(range(10))

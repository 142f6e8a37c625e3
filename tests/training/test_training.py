"""One site's round of training: schedules, amount of work, optimiser state, and what stops it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedbrats.config.schema import TrainConfig
from fedbrats.config.targets import ConfigError
from fedbrats.losses.compound import DiceCE
from fedbrats.training.amount import check_site_names, steps_per_round
from fedbrats.training.loop import TrainingError, train_locally
from fedbrats.training.optimizers import (
    clip_in_steps,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from fedbrats.training.schedule import (
    SCHEDULES,
    learning_rate_factor,
    one_cycle,
    plateau_factor,
    stopped_early,
)

# Learning rate


def test_constant_and_warm_up() -> None:
    assert [learning_rate_factor(r, 10, "constant") for r in (1, 5, 10)] == [1, 1, 1]
    # three rounds of warm-up: quarter, half, three quarters, then the full rate
    assert [learning_rate_factor(r, 10, "constant", 3) for r in (1, 2, 3, 4, 10)] == [0.25, 0.5, 0.75, 1, 1]


def test_poly_and_cosine_by_hand() -> None:
    """Round 1 of 4 is t = 0, round 3 is t = 1/2: 0.5^0.9 = 0.535887 and (1 + cos(pi/2)) / 2 = 1/2."""
    assert learning_rate_factor(1, 4, "poly") == 1
    assert learning_rate_factor(3, 4, "poly") == pytest.approx(0.5358867, rel=1e-6)
    assert learning_rate_factor(1, 4, "cosine") == 1
    assert learning_rate_factor(3, 4, "cosine") == pytest.approx(0.5)
    assert learning_rate_factor(2, 4, "cosine") == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert learning_rate_factor(1, 4, "cosine", 1) == pytest.approx(0.5)
    for schedule in ("poly", "cosine"):
        factors = [learning_rate_factor(r, 10, schedule) for r in range(1, 11)]
        assert factors == sorted(factors, reverse=True)
        assert factors[-1] > 0  # the last round still moves


def test_one_cycle_is_that_of_torch() -> None:
    """torch's `OneCycleLR` with the divisors of fast.ai, whose first step is t = 0 and whose last is t = 1."""
    steps = 41  # the top is at step 10
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        1.0,
        steps,
        pct_start=11 / 41,
        div_factor=25,
        final_div_factor=1e5 / 25,
        cycle_momentum=False,
    )
    for step in range(steps):
        assert one_cycle(step / 40) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        if step < steps - 1:
            torchs.step()
    # Of two rounds the middles are a quarter, where it is highest, and three quarters: two thirds of the way down.
    assert learning_rate_factor(1, 2, "one_cycle") == pytest.approx(1)
    assert learning_rate_factor(2, 2, "one_cycle") == pytest.approx(0.25, abs=1e-4)


def test_every_schedule_that_may_be_named_has_a_curve() -> None:
    assert all(0 < learning_rate_factor(1, 3, schedule, 0, {0.5: 0.1}) <= 1 for schedule in SCHEDULES)


def test_steps_are_those_of_the_milestones() -> None:
    """SPiN (BrainLes 2021): 3e-4, 1e-4 after 400 and 5e-5 after 1400 of 1600 epochs."""
    milestones = {"0.875": 1 / 6, "0.25": 1 / 3}  # as text, in any order
    rates = [
        3e-4 * learning_rate_factor(r, 1600, "steps", 0, milestones) for r in (1, 400, 401, 1400, 1401, 1600)
    ]
    assert rates == pytest.approx([3e-4, 3e-4, 1e-4, 1e-4, 5e-5, 5e-5])
    assert learning_rate_factor(8, 10, "steps", 0, {0.7: 0.5}) == 0.5
    assert learning_rate_factor(7, 10, "steps", 0, {0.7: 0.5}) == 1
    assert learning_rate_factor(1, 10, "steps", 1, {0.7: 0.5}) == 0.5  # warm-up


def test_inverse_policy_of_the_paper() -> None:
    """Pawar et al., equation 2: after all 45 000 iterations (1 + 0.0001 * 45000)^-0.75 = 5.5^-0.75 = 0.27845."""
    assert learning_rate_factor(1, 8, "inverse") == 1
    assert learning_rate_factor(9, 8, "inverse") == pytest.approx(0.2784, abs=1e-4)
    assert learning_rate_factor(5, 8, "inverse") == pytest.approx((1 + 0.0001 * 22_500) ** -0.75)


def test_exponential_policy_of_the_paper() -> None:
    """Joint GNN-CNN (BrainLes 2021), equation 2: PyTorch's rate in each of 300 epochs with 0.98."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    policy = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    for epoch in range(1, 301):
        expected = optimizer.param_groups[0]["lr"]
        assert 5e-4 * learning_rate_factor(epoch, 300, "exponential") == pytest.approx(expected)
        optimizer.step()
        policy.step()
    assert learning_rate_factor(6, 10, "exponential") == pytest.approx(0.98**150)


def test_plateau_waits_then_cuts_then_rests() -> None:
    assert plateau_factor([], 0.5, 2, 0) == 1
    falling = [1.0, 0.9, 0.8, 0.7, 0.6]
    assert plateau_factor(falling, 0.5, 0, 0) == 1
    stuck = [0.6] * 3  # the third one after the best is more than a patience of 2
    assert plateau_factor([*falling, *stuck[:2]], 0.5, 2, 0) == 1
    assert plateau_factor([*falling, *stuck], 0.5, 2, 0) == 0.5
    assert plateau_factor([*falling, *stuck, *stuck], 0.5, 2, 0) == 0.25
    # With a cooldown of 2 two validations do not count, so the second cut comes two later.
    assert plateau_factor([*falling, *stuck, *stuck], 0.4, 2, 2) == pytest.approx(0.4)
    assert plateau_factor([*falling, *stuck, *stuck, 0.6, 0.6], 0.4, 2, 2) == pytest.approx(0.16)
    assert plateau_factor([1.0, 1.0 - 1e-6, 1.0 - 2e-6], 0.5, 1, 0) == 0.5  # too little to count as better


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 0.5, 0.6], False),
        ([1.0, 0.5, 0.6, 0.5], True),  # as low is not lower
        ([1.0, 0.5, 0.6, 0.4], False),
        ([0.4, 0.5, 0.45], True),
    ],
)
def test_training_stops_after_two_validations_without_a_lower_loss(losses: list[float], stops: bool) -> None:
    """Keras's rule: `wait` grows with every epoch that is no better and ends the training at `patience`."""
    assert stopped_early(losses, 2) is stops
    assert not stopped_early(losses, None)


def test_plateau_is_what_torch_does() -> None:
    rng = torch.Generator().manual_seed(3)
    losses = torch.rand(60, generator=rng).cumsum(0).div(torch.arange(1, 61)).tolist()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.4, patience=2, cooldown=3, eps=0)
    for count, loss in enumerate(losses, start=1):
        other.step(loss)
        assert plateau_factor(losses[:count], 0.4, 2, 3) == pytest.approx(optimizer.param_groups[0]["lr"])


# Amount of work


def test_epochs_are_rounded_up_to_whole_batches() -> None:
    train = TrainConfig(local_epochs=1, batch=2)
    assert [steps_per_round("A", n, train) for n in (1, 2, 3, 10)] == [1, 1, 2, 5]
    # 1.5 epochs of 7 cases with 4 patches each in batches of 3: 42 / 3 = 14
    train = TrainConfig(local_epochs=1.5, batch=3, patches_per_case=4)
    assert steps_per_round("A", 7, train) == 14
    assert steps_per_round("A", 1, TrainConfig(local_epochs=0.01, batch=2)) == 1
    assert (
        steps_per_round("A", 50, TrainConfig(local_epochs=1.1, batch=1)) == 55
    )  # as floats 55.00000000000001


def test_steps_are_the_same_for_every_site() -> None:
    train = TrainConfig(local_steps=8)
    assert [steps_per_round(s, n, train) for s, n in (("A", 1), ("B", 100))] == [8, 8]


@pytest.mark.parametrize("common", [{"local_steps": 8}, {"local_epochs": 2.0}], ids=str)
def test_partial_work_of_named_sites_comes_first(common: dict[str, Any]) -> None:
    train = TrainConfig(**common, batch=2, site_steps={"A": 3}, site_epochs={"B": 0.5})
    assert steps_per_round("A", 10, train) == 3
    assert steps_per_round("B", 10, train) == 3  # 0.5 * 10 / 2 = 2.5
    assert steps_per_round("C", 10, train) == (8 if "local_steps" in common else 10)


def test_partial_work_of_a_site_that_does_not_train_is_refused_by_its_key() -> None:
    train = TrainConfig(local_steps=8, site_steps={"A": 3}, site_epochs={"TMX": 1.0})
    check_site_names(train, ["A", "TMX"])
    with pytest.raises(
        ConfigError, match=r"train\.site_epochs names \['TMX'\]; the sites that train are \['A', 'TMC'\]"
    ):
        check_site_names(train, ["TMC", "A"])
    with pytest.raises(ConfigError, match=r"train\.site_steps names \['A'\]"):
        check_site_names(train, ["TMX"])


# Training


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 3, 1))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (2, 6, 6, 6), generator=rng).to(torch.uint8)
    return labels[:, None].float() + 0.3 * torch.randn(2, 4, 6, 6, 6, generator=rng), labels


def go(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    seeds: range | list[int],
    lr_factor: float = 1.0,
    **options: Any,
) -> float:
    data: Iterator[tuple[Tensor, Tensor]] = (batch(seed) for seed in seeds)
    set_learning_rate(optimizer, lr_factor)
    return train_locally(net, optimizer, DiceCE(), data, **options)


def test_training_on_one_batch_lowers_the_loss() -> None:
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = [go(net, optimizer, [0] * 10) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


def test_returned_loss_is_the_mean_over_the_steps() -> None:
    net = network()
    frozen = torch.optim.SGD(net.parameters(), lr=0.0)
    single = [go(net, frozen, [seed]) for seed in (1, 2, 3)]
    assert go(net, frozen, [1, 2, 3]) == pytest.approx(sum(single) / 3, rel=1e-6)


def test_network_is_left_in_training_mode_of_the_round() -> None:
    net = network().eval()
    go(net, torch.optim.SGD(net.parameters(), lr=0.0), [0])
    assert net.training


def test_learning_rate_factor_multiplies_the_configured_rate_once() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # a kept optimiser must not shrink its rate round by round
        go(net, optimizer, [0], lr_factor=0.5)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    go(net, optimizer, [0], lr_factor=1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_non_finite_loss_names_the_setting() -> None:
    net = network()
    with pytest.raises(TrainingError, match=r"train\.optimizer\.lr"):
        go(net, torch.optim.SGD(net.parameters(), lr=1e30), range(3))


def test_gradient_is_clipped_to_its_norm() -> None:
    """Plain SGD with rate 1 moves by the gradient itself, so the step's length is the clipped norm."""

    def length(clip_norm: float | None) -> float:
        net = network()
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        if clip_norm is not None:
            clip_in_steps(optimizer, clip_norm)
        go(net, optimizer, [0])
        return math.sqrt(
            sum(float(((p - b) ** 2).sum()) for p, b in zip(net.parameters(), before, strict=True))
        )

    free = length(None)
    assert free > 0.01
    assert length(0.01) == pytest.approx(0.01, rel=1e-3)
    assert length(1e3) == pytest.approx(free)


OPTIMIZERS: dict[str, Any] = {
    "adam": partial(torch.optim.Adam, lr=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "plain": partial(torch.optim.SGD, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_from_a_file_continues_bit_identically(name: str, tmp_path: Path) -> None:
    make = OPTIMIZERS[name]
    straight = network()
    optimizer = make(straight.parameters())
    go(straight, optimizer, range(3))

    stopped = network()
    stopped.load_state_dict(straight.state_dict())
    save_file(optimizer_tensors(optimizer), tmp_path / "state.safetensors")
    resumed = make(stopped.parameters())
    load_optimizer_tensors(resumed, load_file(tmp_path / "state.safetensors"))

    forgetful = network()
    forgetful.load_state_dict(straight.state_dict())
    go(forgetful, make(forgetful.parameters()), range(3, 6), lr_factor=0.7)
    go(straight, optimizer, range(3, 6), lr_factor=0.7)
    go(stopped, resumed, range(3, 6), lr_factor=0.7)
    same = [torch.equal(a, b) for a, b in zip(straight.parameters(), stopped.parameters(), strict=True)]
    assert all(same)
    if name != "plain":  # the state matters, so the test above means something
        assert not torch.equal(next(straight.parameters()), next(forgetful.parameters()))


def test_loading_state_keeps_the_new_hyper_parameters() -> None:
    net = network()
    old = torch.optim.Adam(net.parameters(), lr=0.01)
    go(net, old, [0])
    new = torch.optim.Adam(net.parameters(), lr=0.5)
    load_optimizer_tensors(new, optimizer_tensors(old))
    assert new.param_groups[0]["lr"] == 0.5

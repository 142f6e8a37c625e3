"""How much of a patient can be told from what a private step releases: lower bounds of epsilon, by attack.

The attack has planted patients ("canaries") that differ as much as patients can: the network is one number per canary,
and the gradient of canary k is far above the bound and points along number k alone. Who sees the trained numbers
guesses who took part. A right mechanism keeps every bound below the epsilon that is claimed; if one comes out above
it, the claim is false (with the stated confidence). The contrary proves nothing: the bounds find gross mistakes, not a
factor of 1.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import beta, binom
from torch import Tensor, nn

from fedbrats.audit.accounts import Draw
from fedbrats.privacy.accounting import Entry, final_epsilon
from fedbrats.privacy.mechanism import Batch, PrivateStep
from fedbrats.privacy.noise import SecretNumbers
from fedbrats.privacy.sampler import draw_patients

CONFIDENCE = 0.95
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5)  # of the canaries that are guessed in, and as many out
STEEP = 1000.0  # a canary's gradient before clipping, times any sensible bound
LARGEST = 50.0  # no bound above it is looked for; so many canaries cannot prove one of 20


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The mechanism under attack, as it is claimed to be, and how to attack it.

    make: `PrivateStep`, or a class that takes its place.
    noise: makes a stream of secret numbers.
    """

    sigma: float
    clip: float
    noise: Callable[[], SecretNumbers]
    delta: float = 1e-5
    make: type[PrivateStep] = PrivateStep
    engine: str = "microbatch"
    chunk: int = 4

    def step(self, canaries: Canaries, expected: float) -> PrivateStep:
        """The private step on the network of canaries."""
        return self.make(
            canaries,
            lambda outputs, labels: -STEEP * self.clip * outputs,
            clip=self.clip,
            sigma=self.sigma,
            expected=expected,
            noise=self.noise(),
            engine=self.engine,
            chunk=self.chunk,
        )


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Outcome of an attack: epsilon is at least `lower_bound` with `confidence`; `claimed` is what theory says."""

    name: str
    lower_bound: float
    claimed: float
    delta: float
    sigma: float
    sample_rate: float
    steps: int
    confidence: float
    says: str

    @property
    def passed(self) -> bool:
        """Whether the attack leaves the claim standing."""
        return self.lower_bound <= self.claimed


class Canaries(nn.Module):
    """A linear network whose patients do not share a number: the output for canary k is weight k."""

    def __init__(self, count: int) -> None:
        """All weights 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count))

    def forward(self, images: Tensor) -> Tensor:
        """Outputs [K] of images [K, count, 1, 1]."""
        return images.flatten(1) @ self.weight

    def patient(self, index: int) -> Batch:
        """The one patch of canary `index`, and a label that nobody looks at."""
        images = torch.zeros(1, len(self.weight), 1, 1)
        images[0, index] = 1
        return images, torch.zeros(1, 1, 1, dtype=torch.uint8)

    def released(self) -> Tensor:
        """The gradient that the last step left, [count], taken away; 0 if it left none."""
        gradient, self.weight.grad = self.weight.grad, None
        return torch.zeros_like(self.weight) if gradient is None else gradient


def one_run(
    attack: Attack,
    *,
    seed: int,
    canaries: int = 1000,
    sample_rate: float = 1.0,
    steps: int = 1,
    draw: Draw = draw_patients,
) -> Bound:
    """Audit in one run (Steinke, Nasr, Jagielski, NeurIPS 2023, algorithm 1), on the step that trains real networks.

    Every canary takes part with probability 1/2, by a coin of `seed`. After `steps` steps the highest weights are
    guessed to have been in, the lowest out; see `lower_bound`.
    """
    coins = np.random.default_rng(seed).random(canaries) < 0.5
    inside = np.flatnonzero(coins)
    network = Canaries(canaries)
    # The divisor is public, so it must not follow the coins.
    step, sampler = attack.step(network, max(sample_rate * canaries / 2, 1.0)), attack.noise()
    for _ in range(steps):
        drawn = draw(len(inside), sample_rate, sampler)
        step.gradients(network.patient(int(inside[i])) for i in drawn)
        with torch.no_grad():
            network.weight.sub_(network.released())
    found = audit_scores(network.weight.detach().double().numpy(), coins, attack.delta)
    return _bound(
        attack,
        "one run",
        found,
        sample_rate,
        steps,
        f"{canaries} planted patients, half of them in training, guessed from the trained network after {steps} "
        f"step{'s' if steps > 1 else ''}.",
    )


def many_steps(attack: Attack, *, repeats: int = 2000) -> Bound:
    """Tell apart one step with and without one patient, `repeats` times each.

    A threshold on the released number is chosen on the first half of the steps. On the second half the rates of right
    and wrong guesses get Clopper-Pearson bounds, and epsilon is at least log((right - delta) / wrong) (Nasr et al.,
    IEEE S&P 2021, section III).
    """
    network = Canaries(1)
    step, patient = attack.step(network, 1.0), network.patient(0)

    def released(patients: Sequence[Batch]) -> np.ndarray:
        numbers = np.empty(repeats)
        for i in range(repeats):
            step.gradients(patients)
            numbers[i] = -network.released().item()
        return numbers

    found = distinguish(released([patient]), released([]), attack.delta)
    return _bound(
        attack,
        "one step, many times",
        found,
        1.0,
        1,
        f"One step with and without one patient, {repeats} times each, told apart by a threshold.",
    )


def audit_scores(scores: np.ndarray, inside: np.ndarray, delta: float) -> float:
    """The best `lower_bound` over the numbers of guesses in `SHARES`, at a level shared among them (Bonferroni).

    Args:
        scores: of each canary [m]; high means in.
        inside: whether it was [m].
        delta: of the claim.
    """
    m = len(scores)
    order = np.argsort(-scores, kind="stable")
    level, best = (1 - CONFIDENCE) / len(SHARES), 0.0
    for share in SHARES:
        k = max(1, int(share * m))
        right = int(inside[order[:k]].sum() + (~inside[order[m - k :]]).sum())
        best = max(best, lower_bound(m, 2 * k, right, delta, level))
    return best


def lower_bound(canaries: int, guesses: int, right: int, delta: float, level: float) -> float:
    """Largest epsilon that so many right guesses rule out at this level, to 1e-6; 0 if they rule out none."""
    if p_value(canaries, guesses, right, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, LARGEST
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if p_value(canaries, guesses, right, middle, delta) <= level else (low, middle)
        )
    return low


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Bound on the chance of so many right guesses if the mechanism is (epsilon, delta)-private.

    Steinke, Nasr, Jagielski (arXiv 2305.08846, theorem 5.2): with W ~ Binomial(guesses, 1 / (1 + exp(-epsilon))) it is
    P(W >= right) + 2 m delta max_i P(right - i <= W < right) / i over i = 1, 2, ... m.
    """
    chance = 1 / (1 + math.exp(-epsilon))
    enough = float(binom.sf(right - 1, guesses, chance))
    if not delta or not right:
        return min(1.0, enough)
    i = np.arange(1, right + 1)  # beyond, the probability grows no more
    nearly = float(np.max((binom.sf(right - i - 1, guesses, chance) - enough) / i))
    return min(1.0, enough + 2 * canaries * delta * max(0.0, nearly))


def distinguish(with_patient: np.ndarray, without: np.ndarray, delta: float) -> float:
    """Lower bound of epsilon from numbers [R] released with and without a patient, in either direction."""
    half = len(with_patient) // 2
    thresholds = np.quantile(
        np.concatenate([with_patient[:half], without[:half]]), np.linspace(0.01, 0.99, 99)
    )

    def tests() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each threshold and direction: where a guess would be right [R], and where the same guess is wrong [R]."""
        for threshold in thresholds:
            for a, b in ((with_patient, without), (without, with_patient)):
                yield a > threshold, b > threshold
                yield a <= threshold, b <= threshold

    def bound(right: np.ndarray, wrong: np.ndarray) -> float:
        level, n = (1 - CONFIDENCE) / 2, len(right)
        low = float(beta.ppf(level, right.sum(), n - right.sum() + 1)) if right.any() else 0.0
        high = float(beta.ppf(1 - level, wrong.sum() + 1, n - wrong.sum())) if not wrong.all() else 1.0
        return math.log(max(low - delta, 1e-12) / high)

    right, wrong = max(tests(), key=lambda test: bound(test[0][:half], test[1][:half]))
    return max(0.0, bound(right[half:], wrong[half:]))


def _bound(attack: Attack, name: str, found: float, rate: float, steps: int, says: str) -> Bound:
    return Bound(
        name=name,
        lower_bound=found,
        claimed=final_epsilon([Entry(attack.sigma, rate, steps)], attack.delta)[0],
        delta=attack.delta,
        sigma=attack.sigma,
        sample_rate=rate,
        steps=steps,
        confidence=CONFIDENCE,
        says=says,
    )

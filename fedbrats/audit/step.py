"""Checks that a private step does what its epsilon is computed for; each finds a mistake that others have made.

A check takes the class that makes the step, so a test can put a broken one in its place. None of them trusts what the
step says about itself: gradients are taken again one patient at a time, and noise and sampling are judged by what comes
out. Where chance plays a part, a right step fails a check less than once in a thousand times.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedbrats.privacy.mechanism import Batch, PrivateStep, Values
from fedbrats.privacy.noise import SecretNumbers

ROUNDING = 5e-3  # relative; float32 gradients of a deep network differ by some 1e-4 between the engines
OUTLIER = 100.0  # factor on the intensities of one patient
COPIES = 4  # patches in the check of patches
DEVIATIONS = 4.0  # standard errors that chance may take; exceeded once in 16 000 times
SURPRISE = 4.0  # -log10 of the smallest p-value that is put down to chance


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found.

    passed: whether the step is right as far as the check can see.
    measured: the figure that was found, to be at most `bound`.
    says: what was done, in a sentence.
    """

    name: str
    passed: bool
    measured: float
    bound: float
    says: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A private step under audit, the network it trains and patients to try it with.

    make: `PrivateStep`, or a class that takes its place.
    network: trained by the step; it is copied, and its dropout is switched off, as chance would hide what is measured.
    patients: two or more, each with the patches of one step.
    noise: makes a new stream of secret numbers.
    clip, sigma, expected, engine, chunk: of `PrivateStep`.
    """

    make: type[PrivateStep] = PrivateStep
    network: nn.Module
    values: Values
    patients: Sequence[Batch]
    noise: Callable[[], SecretNumbers]
    clip: float
    sigma: float
    expected: float
    engine: str = "microbatch"
    chunk: int = 4

    def __post_init__(self) -> None:
        """Raises ValueError: fewer than two patients, or no noise to look for."""
        if len(self.patients) < 2:
            raise ValueError(f"{len(self.patients)} patients: an audit needs two, to leave one out")
        if not self.sigma > 0:
            raise ValueError(f"sigma={self.sigma}: there is no noise to audit")
        object.__setattr__(self, "network", _without_dropout(self.network).train())

    def step(self, **changes: float) -> PrivateStep:
        """A step with these settings, some of them changed."""
        settings = {"clip": self.clip, "sigma": self.sigma, "expected": self.expected} | changes
        options = {"noise": self.noise(), "engine": self.engine, "chunk": self.chunk}
        return self.make(self.network, self.values, **settings, **options)  # type: ignore[arg-type]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that get a private gradient."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def total(self, patients: Iterable[Batch], **changes: float) -> Tensor:
        """Sum of the clipped gradients of `patients`, without noise, float64 [d]."""
        return flat(self.step(**changes).clipped_sum(patients)[0])

    def released(self, step: PrivateStep, patients: Sequence[Batch]) -> Tensor:
        """The gradient that `step` gives for these patients, float64 [d]."""
        for parameter in self.trained:
            parameter.grad = None
        step.gradients(patients)
        return flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self.trained])

    def alone(self, patient: Batch) -> Tensor:
        """Gradient of one patient's mean value over its patches, by plain autograd, float64 [d]."""
        images, labels = patient
        value = self.values(self.network(images), labels).mean()
        return flat(torch.autograd.grad(value, self.trained, materialize_grads=True))

    def loud(self) -> Subject:
        """The same with a loss so steep that the gradient of each patch alone is far above the bound."""
        first = [(images[:1], labels[:1]) for images, labels in self.patients]
        lengths = [float(self.alone(patient).norm()) for patient in (*self.patients, *first)]
        known = [length for length in lengths if math.isfinite(length) and length > 0]
        factor, values = 10 * COPIES * self.clip / min(known, default=1.0), self.values
        return replace(self, values=lambda outputs, labels: factor * values(outputs, labels))


def step_checks(subject: Subject) -> list[Check]:
    """All checks of the step itself."""
    tests = (
        neighbours,
        patches_of_a_patient,
        clipping_of_each,
        noise_on_empty_draw,
        noise_on_full_draw,
        noise_everywhere,
        fresh_noise,
        public_divisor,
        nothing_else_changes,
    )
    return [test(subject) for test in tests]


def neighbours(subject: Subject) -> Check:
    """Leave out each patient in turn: the sum must not move by more than C, whatever the patient's images.

    One patient's images are multiplied by 100, and the loss is so steep that every gradient is above the bound.
    """
    loud = subject.loud()
    images, labels = subject.patients[0]
    patients = [(images * OUTLIER, labels), *subject.patients[1:]]
    whole = loud.total(patients)
    moved = [
        float((whole - loud.total(patients[:j] + patients[j + 1 :])).norm()) for j in range(len(patients))
    ]
    return at_most(
        "sensitivity",
        max(moved),
        subject.clip * (1 + ROUNDING),
        f"Furthest that one of {len(patients)} patients, one of them with intensities times {OUTLIER:g}, moves the sum "
        "of clipped gradients; at most C.",
    )


def patches_of_a_patient(subject: Subject) -> Check:
    """A patient with several patches must not count for more than one with a single patch."""
    loud, lengths = subject.loud(), []
    for images, labels in subject.patients:
        several = images[:1].repeat_interleave(COPIES, 0), labels[:1].repeat_interleave(COPIES, 0)
        lengths.append(float(loud.total([several]).norm()))
    return at_most(
        "patches",
        max(lengths),
        subject.clip * (1 + ROUNDING),
        f"Longest contribution of a patient with {COPIES} patches; at most C, as with one patch.",
    )


def clipping_of_each(subject: Subject) -> Check:
    """The sum must be that of gradients taken and clipped one patient at a time, for loose and for tight bounds."""
    gradients = [subject.alone(patient) for patient in subject.patients]
    gradients = [g for g in gradients if bool(g.isfinite().all())]  # of the others nothing may be in the sum
    lengths, off = [float(g.norm()) for g in gradients], []
    for clip in (subject.clip, 0.5 * min(lengths), 2 * max(lengths)):
        factors = [min(1.0, clip / length) for length in lengths]
        known = torch.stack([f * g for f, g in zip(factors, gradients)]).sum(0)
        size = sum(f * length for f, length in zip(factors, lengths))
        off.append(float((subject.total(subject.patients, clip=clip) - known).norm()) / size)
    return at_most(
        "clipping",
        max(off),
        ROUNDING,
        "Relative distance of the sum from gradients clipped one patient at a time, for C, for a bound that clips "
        "everybody and for one that clips nobody.",
    )


def noise_on_empty_draw(subject: Subject) -> Check:
    """A step that draws nobody must release noise of deviation sigma C / (q N) all the same."""
    noise = subject.released(subject.step(), [])
    return _deviation("noise, nobody drawn", subject, noise)


def noise_on_full_draw(subject: Subject) -> Check:
    """The noise must not depend on how many patients were drawn."""
    patients = list(subject.patients)
    noise = subject.released(subject.step(), patients) - subject.released(subject.step(sigma=0.0), patients)
    return _deviation("noise, patients drawn", subject, noise)


def noise_everywhere(subject: Subject) -> Check:
    """Every parameter array must get its noise, by the chi-squared distribution of its sum of squares."""
    noise = subject.released(subject.step(), []) * subject.expected / (subject.sigma * subject.clip)
    chances = []
    for part in noise.split([p.numel() for p in subject.trained]):
        squares, count = float(part.square().sum()), part.numel()
        chances.append(2 * min(chi2.cdf(squares, count), chi2.sf(squares, count)))
    return surprise(
        "noise everywhere",
        chances,
        f"Whether the noise of each of {len(chances)} parameter arrays has its size; -log10 of the smallest p-value.",
    )


def fresh_noise(subject: Subject) -> Check:
    """Steps of one round, and steps of two rounds, must not share their noise."""
    step = subject.step()
    drawn = [subject.released(step, []) for _ in range(3)] + [subject.released(subject.step(), [])]
    shared = [cosine(a, b) for a, b in combinations(drawn, 2)]
    return at_most(
        "fresh noise",
        max(shared),
        min(0.999, (DEVIATIONS + 1) / math.sqrt(drawn[0].numel())),
        "Largest correlation of the noise of two steps, within a round and between rounds.",
    )


def nothing_else_changes(subject: Subject) -> Check:
    """What a step writes beside gradients (running statistics, counters) would leave the site without noise."""
    before = [buffer.clone() for buffer in subject.network.buffers()]
    subject.released(subject.step(), list(subject.patients))
    changes = [
        float((b.double() - a.double()).abs().max()) for a, b in zip(before, subject.network.buffers())
    ]
    return at_most(
        "buffers",
        max(changes, default=0.0),
        0.0,
        f"Largest change of {len(before)} buffers in a step; none may.",
    )


def public_divisor(subject: Subject) -> Check:
    """The sum must be divided by the public q N, not by the number drawn, which is secret."""
    expected, off = subject.expected + 0.37, []  # no whole number, and not the number drawn
    for patients in (subject.patients[:1], subject.patients):
        total = subject.total(patients)
        gradient = subject.released(subject.step(sigma=0.0, expected=expected), list(patients))
        off.append(float((gradient * expected - total).norm() / total.norm()))
    return at_most(
        "divisor",
        max(off),
        ROUNDING,
        f"Relative distance of gradient times q N from the sum, for 1 and for {len(subject.patients)} patients drawn.",
    )


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All numbers in one vector, float64 [d] on the CPU; a copy."""
    return torch.cat([tensor.detach().double().cpu().flatten() for tensor in tensors])


def _without_dropout(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):  # MONAI's DropPath
            module.drop_prob = 0.0  # type: ignore[assignment]
    return network


def cosine(a: Tensor, b: Tensor) -> float:
    """Correlation of two noise vectors; 1 where one of them is no noise at all."""
    length = float(a.norm() * b.norm())
    return abs(float(a @ b)) / length if length > 0 else 1.0


def _deviation(name: str, subject: Subject, noise: Tensor) -> Check:
    found = float(noise.square().mean().sqrt()) * subject.expected / (subject.sigma * subject.clip)
    return at_most(
        name,
        abs(found - 1),
        DEVIATIONS / math.sqrt(2 * noise.numel()),
        f"Deviation of the noise over {noise.numel()} parameters is {found:.5f} times sigma C / (q N); distance "
        "from 1.",
    )


def at_most(name: str, measured: float, bound: float, says: str) -> Check:
    return Check(name=name, passed=measured <= bound, measured=measured, bound=bound, says=says)


def surprise(name: str, chances: Sequence[float] | np.ndarray, says: str) -> Check:
    """A check by p-values, corrected for their number (Bonferroni)."""
    smallest = min(1.0, max(float(np.min(chances)) * len(chances), 1e-300))
    return at_most(name, max(0.0, -math.log10(smallest)), SURPRISE, says)

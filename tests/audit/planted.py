"""Private steps with a mistake in them, each a small change of the right one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import torch
from torch import Tensor

from fedbrats.privacy.mechanism import Batch, Drawn, PrivateStep
from fedbrats.privacy.release import grid_of

ANYTHING = 1e9  # a bound that bounds nothing


class PatchAsUnit(PrivateStep):
    """Clips patches, as an engine does that takes the batch dimension for patients."""

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        return super().clipped_sum(
            (images[i : i + 1], labels[i : i + 1]) for images, labels in patients for i in range(len(images))
        )


class NoClipping(PrivateStep):
    """Forgets to clip."""

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        clip, self.clip = self.clip, ANYTHING
        try:
            return super().clipped_sum(patients)
        finally:
            self.clip = clip


class BatchClipped(NoClipping):
    """Clips the mean over the patients, as `clip_grad_norm_` does."""

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        total, drawn = super().clipped_sum(patients)
        length = float(torch.cat([t.flatten() for t in total]).norm())
        torch._foreach_mul_(total, min(1.0, self.clip * max(1, drawn.patients) / max(length, 1e-12)))
        return total, drawn


class SumClipped(NoClipping):
    """Clips the sum of all patients to the bound of one."""

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        total, drawn = super().clipped_sum(patients)
        length = float(torch.cat([t.flatten() for t in total]).norm())
        torch._foreach_mul_(total, min(1.0, self.clip / max(length, 1e-12)))
        return total, drawn


class SameNoiseEveryStep(PrivateStep):
    """Draws its noise once per round."""

    kept: list[Tensor] | None = None

    def add_noise(self, total: list[Tensor]) -> None:
        if self.kept is None:
            self.kept = [torch.zeros_like(t) for t in total]
            super().add_noise(self.kept)
        torch._foreach_add_(total, self.kept)


class NoiseInTheFirstStep(PrivateStep):
    """Adds noise in the first step of a round only."""

    done = False

    def add_noise(self, total: list[Tensor]) -> None:
        if not self.done:
            super().add_noise(total)
        self.done = True


class DividedByDrawn(PrivateStep):
    """Divides by the number of patients drawn, which is secret."""

    def gradients(self, patients: Iterable[Batch]) -> Drawn:
        drawn = super().gradients(patients := list(patients))
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(self.expected / max(1, len(patients)))
        return drawn


class DividedByDrawnIfAlone(PrivateStep):
    """Divides by the number drawn where that is one, else as it should."""

    def gradients(self, patients: Iterable[Batch]) -> Drawn:
        drawn = super().gradients(patients)
        if drawn.patients == 1:
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.grad.mul_(self.expected)
        return drawn


class NoiseWithoutBound(PrivateStep):
    """Noise of deviation sigma, whatever the bound."""

    def add_noise(self, total: list[Tensor]) -> None:
        clip, self.clip = self.clip, 1.0
        super().add_noise(total)
        self.clip = clip


class NoiseDividedTwice(PrivateStep):
    """Noise for the mean is added to the sum, and divided again."""

    def add_noise(self, total: list[Tensor]) -> None:
        sigma, self.sigma = self.sigma, self.sigma / self.expected
        super().add_noise(total)
        self.sigma = sigma


class NothingWhenNobody(PrivateStep):
    """Skips a step that draws nobody."""

    def gradients(self, patients: Iterable[Batch]) -> Drawn:
        drawn = super().gradients(patients)
        if not drawn.patients:
            for parameter in self.parameters:
                parameter.grad = None
        return drawn


class OneArrayWithoutNoise(PrivateStep):
    """Leaves one array, the smallest, without noise."""

    def add_noise(self, total: list[Tensor]) -> None:
        spared = min(total, key=lambda t: t.numel())
        before = spared.clone()
        super().add_noise(total)
        spared.copy_(before)


class NoiseForEachPatient(PrivateStep):
    """Noise grows with the number of patients drawn, which gives it away."""

    def gradients(self, patients: Iterable[Batch]) -> Drawn:
        patients, sigma = list(patients), self.sigma
        self.sigma = sigma * max(1, len(patients)) ** 0.5
        drawn = super().gradients(patients)
        self.sigma = sigma
        return drawn


class Halved(PrivateStep):
    """Clips to half the bound: private, but not what is said."""

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        total, drawn = super().clipped_sum(patients)
        torch._foreach_mul_(total, 0.5)
        return total, drawn


class Counting(PrivateStep):
    """Keeps a statistic of the patients in a buffer of the network, which is sent."""

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        total, drawn = super().clipped_sum(patients)
        for buffer in self.network.buffers():
            buffer.add_(drawn.patients)
        return total, drawn


class CountingInOne(PrivateStep):
    """The same in the first buffer only."""

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        total, drawn = super().clipped_sum(patients)
        next(self.network.buffers()).add_(drawn.patients)
        return total, drawn


class NoiseOfFloat32(PrivateStep):
    """Noise of Box and Muller (1958) in float32, from 32 random bits each: what this project had once."""

    def add_noise(self, total: list[Tensor]) -> None:
        for tensor in total:
            pairs = -(-tensor.numel() // 2)
            words = torch.frombuffer(bytearray(os.urandom(8 * pairs)), dtype=torch.int32).view(2, pairs)
            drawn = box_muller(words)[: tensor.numel()].view(tensor.shape)
            tensor.copy_(tensor.float().add_(drawn, alpha=self.sigma * self.clip))


class NoiseOfFloat32ForSome(NoiseOfFloat32):
    """The same where anybody was drawn, and else as it should be."""

    def add_noise(self, total: list[Tensor]) -> None:
        anybody = any(bool(tensor.any()) for tensor in total)
        (super() if anybody else super(NoiseOfFloat32, self)).add_noise(total)


def box_muller(words: Tensor) -> Tensor:
    """Standard normal numbers float32 [2 n] of int32 [2, n]."""
    radius = words[0].float().abs_().add_(0.5).mul_(2.0**-31).clamp_(max=1.0).log_().mul_(-2).sqrt_()
    angle = words[1].float().mul_(math.pi * 2.0**-31)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])


class NoiseOfTorch(PrivateStep):
    """Noise of `torch.randn` in float32."""

    def add_noise(self, total: list[Tensor]) -> None:
        for tensor in total:
            tensor.copy_(tensor.float().add_(torch.randn(tensor.shape), alpha=self.sigma * self.clip))


class NoiseOfFloat64(PrivateStep):
    """Noise of 64 bits, which is never rounded."""

    def add_noise(self, total: list[Tensor]) -> None:
        for tensor in total:
            tensor.add_(self.noise.normal(tensor.numel()).view(tensor.shape), alpha=self.sigma * self.clip)


class RoundedBeforeTheNoise(NoiseOfFloat64):
    """Rounds what needs no rounding."""

    def add_noise(self, total: list[Tensor]) -> None:
        grid = grid_of(self.sigma * self.clip)
        for tensor in total:
            tensor.div_(grid).round_().mul_(grid)
        super().add_noise(total)


class FinerForMany(NoiseOfFloat64):
    """Rounds to a finer grid where anybody was drawn."""

    factor = 0.5

    def add_noise(self, total: list[Tensor]) -> None:
        anybody = any(bool(tensor.any()) for tensor in total)
        super().add_noise(total)
        grid = grid_of(self.sigma * self.clip) * (self.factor if anybody else 1)
        for tensor in total:
            tensor.div_(grid).round_().mul_(grid)


class CoarserForMany(FinerForMany):
    """Rounds to a coarser grid where anybody was drawn."""

    factor = 2

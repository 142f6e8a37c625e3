"""Differentially private SGD with one patient as the unit (Abadi et al., CCS 2016, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, starmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedbrats.config.targets import ConfigError
from fedbrats.privacy.noise import SecretNumbers
from fedbrats.privacy.release import release

ENGINES = ("microbatch", "vmap")
SLACK = 1e-6  # added to a norm before it divides the bound, as in Opacus, so that both give the same digits
LARGEST = 1e30  # norm; beyond it the factor of clipping would leave the normal range of float32

Batch = tuple[Tensor, Tensor]  # images float32 [K, 4, *patch] and labels uint8 [K, *patch] of one patient
Values = Callable[[Any, Tensor], Tensor]  # network outputs and labels -> one value per patch, [K]
Gradient = tuple[Tensor, list[Tensor]]  # a patient's value and its gradient


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What one step saw, without noise: it must not leave the site.

    Attributes:
        patients: number drawn.
        clipped: those whose gradient was longer than the bound.
        norms: of the patients' gradients before clipping; nan where not finite.
        loss: mean over the patients with a finite value, nan if there are none.
    """

    patients: int
    clipped: int
    norms: tuple[float, ...]
    loss: float


class PrivateStep:
    """Gradients of one private step: clip per patient, sum, add noise, divide by the expected number of patients.

    A patient's gradient is that of the mean over its K patches, so a patient with many patches weighs no more than one
    with few. It is scaled down to length `clip` over all trainable parameters together; parameters that share one
    tensor count once. One patient, whatever its images, then moves the sum by `clip` at most, and the noise has
    standard deviation `sigma * clip`. The sum with its noise is rounded to a public grid (`release`), and all that
    comes after is computed from that. The divisor is `expected`, a public number; that of the patients drawn is secret.

    Two engines give the same gradients up to rounding. `microbatch` takes one patient after the other, in the memory
    of one patient. `vmap` takes `chunk` of them at once with a gradient for each; it can be faster on small patches.
    """

    def __init__(
        self,
        network: nn.Module,
        values: Values,
        *,
        clip: float,
        sigma: float,
        expected: float,
        noise: SecretNumbers,
        engine: str = "microbatch",
        chunk: int = 4,
        amp: bool = False,
    ) -> None:
        """Choose what is private.

        Args:
            network: 2D or 3D; no module of it may mix patients. Whether it trains or evaluates is left as it is.
            values: of the network's outputs and the labels, the loss of each patch, [K].
            clip: bound C on the length of a patient's gradient.
            sigma: noise multiplier; 0 adds none.
            expected: number of patients expected in a step, sample rate times patients.
            noise: see `noise.secret_numbers`.
            engine: `microbatch` or `vmap`.
            chunk: patients at once with `vmap`.
            amp: forward pass in bfloat16.

        Raises:
            ConfigError: a number is out of range, an unknown engine, or nothing to train.
        """
        for key, value in (("clip", clip), ("expected", expected)):
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"privacy.{key}={value}: must be a finite number above 0.")
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ConfigError(f"privacy.sigma={sigma}: must be a finite number, 0 or more.")
        if engine not in ENGINES:
            raise ConfigError(f"privacy.engine={engine}: choose {' or '.join(ENGINES)}.")
        if chunk < 1:
            raise ConfigError(f"privacy.chunk={chunk}: must be 1 or more patients.")
        self.network, self.values, self.noise = network, values, noise
        self.clip, self.sigma, self.expected = clip, sigma, expected
        self.engine, self.chunk, self.amp = engine, chunk, amp
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        if not self.parameters:
            raise ConfigError("privacy: the network has no trainable parameter.")

    def gradients(self, patients: Iterable[Batch]) -> Drawn:
        """Write the private gradient of these patients, maybe none, into `.grad` of every trainable parameter."""
        total, drawn = self.clipped_sum(patients)
        self.add_noise(total)
        for parameter, summed in zip(self.parameters, total, strict=True):
            parameter.grad = summed.div_(self.expected).to(parameter.dtype)
        return drawn

    def clipped_sum(self, patients: Iterable[Batch]) -> tuple[list[Tensor], Drawn]:
        """Sum of the clipped gradients, a float64 tensor per trainable parameter, without noise: secret.

        In float32 the roundings of the sum would depend on who is in it, beyond the bound. A patient whose gradient is
        not finite contributes nothing, so that it cannot spoil the others'.
        """
        total = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]
        # Not a loop: its variable would keep a gradient in memory while the next one is computed.
        found = list(starmap(partial(self._add, total), self._gradients(patients)))
        norms = tuple(norm for norm, _ in found)
        values = [value for _, value in found if math.isfinite(value)]
        return total, Drawn(
            patients=len(found),
            clipped=sum(norm > self.clip for norm in norms),
            norms=norms,
            loss=sum(values) / len(values) if values else math.nan,
        )

    def add_noise(self, total: list[Tensor]) -> None:
        """Add Gaussian noise of standard deviation sigma * clip to a sum of clipped gradients; round it; in place."""
        for tensor in total if self.sigma else ():
            tensor.copy_(release(tensor, self.sigma * self.clip, self.noise))

    def _add(self, total: list[Tensor], value: Tensor, gradient: list[Tensor]) -> tuple[float, float]:
        """Add one clipped gradient to the sum; its norm before and the patient's value."""
        # The norm in float64, which neither overflows nor loses digits over millions of numbers.
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradient, 2, torch.float64)))
        norm, loss = torch.stack([length, value.detach().double()]).tolist()
        if not norm <= LARGEST:
            return math.nan, loss
        torch._foreach_add_(total, gradient, alpha=min(1.0, self.clip / (norm + SLACK)))
        return norm, loss

    def _gradients(self, patients: Iterable[Batch]) -> Iterator[Gradient]:
        """Value and gradient of each patient; patients are taken from the iterable as they are needed."""
        if self.engine == "microbatch":
            for images, labels in patients:
                yield self._alone(images, labels)
            return
        source = iter(patients)
        while batch := list(islice(source, self.chunk)):
            yield from self._together(batch)

    def _alone(self, images: Tensor, labels: Tensor) -> Gradient:
        layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.amp):
            outputs = self.network(images.to(memory_format=layout))
        value = self.values(outputs, labels).mean()
        return value, list(torch.autograd.grad(value, self.parameters, materialize_grads=True))

    def _together(self, batch: list[Batch]) -> Iterator[Gradient]:
        images, labels = (torch.stack(tensors) for tensors in zip(*batch, strict=True))
        places = _places(self.network, self.parameters)

        def value_of(parameters: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
            named = {name: parameters[index] for name, index in places}
            with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.amp):
                outputs = functional_call(self.network, named, (images,), tie_weights=False)
            return self.values(outputs, labels).mean()

        each = vmap(grad_and_value(value_of), in_dims=(None, 0, 0), randomness="different")
        try:
            gradients, values = each([p.detach() for p in self.parameters], images, labels)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                "privacy.engine=vmap: this network or loss cannot be run for several patients at once; use "
                f"privacy.engine=microbatch ({why})."
            ) from error
        for i in range(len(batch)):
            yield values[i], [gradient[i] for gradient in gradients]


def _places(network: nn.Module, parameters: Sequence[Tensor]) -> list[tuple[str, int]]:
    """Every place in `network` where one of `parameters` is registered, by name, and its index.

    `functional_call` can find these by itself, but where one module has two names, as in MONAI's DynUNet, it then
    leaves its stand-ins in the network, which would no longer be trained. Here each module has one name.
    """
    index = {id(parameter): i for i, parameter in enumerate(parameters)}
    return [
        (f"{path}.{name}".removeprefix("."), index[id(parameter)])
        for path, module in network.named_modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in index
    ]

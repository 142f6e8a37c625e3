"""Fine-tuning of the final global model at each site, for its own use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fedbrats.arrays import travelling
from fedbrats.models.norms import NORMS, norm_arrays
from fedbrats.personalization.base import LocalWork, Personalization
from fedbrats.personalization.head_local import arrays_of
from fedbrats.personalization.heads import head_modules
from fedbrats.personalization.norms import NoNorms

LAYERS = ("all", "norm", "head")


@dataclass(frozen=True, kw_only=True)
class Finetune(Personalization):
    """Rounds as without personalisation; after the last one each site trains the final model on its own cases.

    The baseline of Wang et al., "Federated evaluation of on-device personalization" (arXiv 1910.10252). `layers` says
    what is trained: everything, the arrays of normalisation layers, or the output heads. What is not trained keeps its
    values, running statistics too, whose layers then normalise by them as in evaluation.

    With patient-level differential privacy all that is released in training is as private as without this method. The
    tuned model is not: it is made without noise and must not leave the site, and its test scores are outside the
    guarantee.
    """

    steps: int = 50  # optimiser steps
    lr_factor: float = 0.1  # on the configured learning rate
    layers: str = "all"  # all | norm | head

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        if self.steps < 1:
            raise ValueError(f"personalization.steps={self.steps}: must be at least 1.")
        if not 0 < self.lr_factor < float("inf"):
            raise ValueError(f"personalization.lr_factor={self.lr_factor}: must be a positive number.")
        if self.layers not in LAYERS:
            raise ValueError(f"personalization.layers={self.layers}: choose {', '.join(LAYERS)}.")

    def stays(self, network: nn.Module, patch: Sequence[int]) -> tuple[str, ...]:
        """Nothing stays in the rounds; but whether there is something to tune is checked before they start.

        Raises:
            NoNorms: `layers` says norm, and `network` has none with weights.
            ConfigError: `layers` says head, and the heads cannot be found.
        """
        self._tuned(network, patch)
        return ()

    def personal(self, work: LocalWork) -> None:
        """Train the final model."""
        with _only(work.network, self._tuned(work.network, work.patch)):
            work.fit("finetune", work.network, None, self.steps, self.lr_factor)

    def _tuned(self, network: nn.Module, patch: Sequence[int]) -> tuple[str, ...]:
        if self.layers == "head":
            return arrays_of(network, head_modules(network, patch))
        if self.layers == "all":
            return tuple(travelling(network))
        if not norm_arrays(network, NORMS, statistics=False):
            raise NoNorms(
                f"personalization.layers=norm: {type(network).__name__} has no normalisation layer with weights, which "
                "personalization.layers=all or head do not need"
            )
        return norm_arrays(network, NORMS)


@contextmanager
def _only(network: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    """Within this context nothing but the arrays called `names` changes when `network` is trained."""
    arrays = travelling(network)
    tuned = {id(arrays[name]) for name in names}
    frozen = [p for p in network.parameters() if p.requires_grad and id(p) not in tuned]
    fixed = [
        m.register_forward_pre_hook(
            _evaluate
        )  # before each pass, because training switches to train mode itself
        for m in network.modules()
        if isinstance(m, _NormBase) and m.running_mean is not None and id(m.running_mean) not in tuned
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for handle in fixed:
            handle.remove()


def _evaluate(module: nn.Module, inputs: Any) -> None:
    module.eval()

"""FedPer (Arivazhagan et al., "Federated learning with personalization layers", arXiv 1912.00818, Algorithms 1, 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fedbrats.arrays import travelling
from fedbrats.config.targets import ConfigError
from fedbrats.personalization.base import Personalization
from fedbrats.personalization.heads import head_modules
from fedbrats.personalization.unseen import check_choice

CHOICES = ("average", "initial")


@dataclass(frozen=True, kw_only=True)
class HeadLocal(Personalization):
    """The last layer of every output stays at the site, or the layers that are named; the base layers are averaged.

    Both are trained together in every step, as in the paper. With patient-level differential privacy the private step
    clips and noises both together, so keeping the head home is post-processing, as in `NormLocal`.

    An institution that never trained has no head. The mean of the sites' heads ("average") serves it, for which they
    leave the sites once, after the last round; with "initial" it has the untrained one, which segments at random.
    """

    keeps_state: ClassVar[bool] = True
    unseen: str = "average"  # average | initial
    layers: list[str] | None = (
        None  # names of modules, with all that is in them; None finds the output layers
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        check_choice(self.unseen, CHOICES)
        if self.layers is not None and not self.layers:
            raise ValueError(
                "personalization.layers=[]: name at least one layer, or null for the output layers."
            )

    def stays(self, network: nn.Module, patch: Sequence[int]) -> tuple[str, ...]:
        """Arrays of the heads.

        Raises:
            ConfigError: a name of `layers` that is no module with arrays, or heads that cannot be found.
        """
        if self.layers is None:
            return arrays_of(network, head_modules(network, patch))
        return arrays_of(network, self.layers)


def arrays_of(network: nn.Module, layers: Iterable[str]) -> tuple[str, ...]:
    """Names of the travelling arrays of the modules called `layers` and of all that is in them.

    Raises:
        ConfigError: there is no such module, or it has no arrays.
    """
    found: set[int] = set()
    modules = dict(network.named_modules(remove_duplicate=False))
    for layer in layers:
        if layer not in modules:
            near = [name for name in modules if name.count(".") == layer.count(".") and name][:8]
            raise ConfigError(
                f"personalization.layers: {type(network).__name__} has no module {layer!r}; it has {', '.join(near)}."
            )
        own = {id(tensor) for tensor in travelling(modules[layer]).values()}
        if not own:
            raise ConfigError(f"personalization.layers: {layer!r} has no arrays that could stay local.")
        found |= own
    return tuple(name for name, tensor in travelling(network).items() if id(tensor) in found)

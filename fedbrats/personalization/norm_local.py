"""FedBN for any normalisation (after Li et al., ICLR 2021), and its form that is sound with differential privacy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fedbrats.models.norms import NORMS, norm_arrays
from fedbrats.personalization.base import Personalization
from fedbrats.personalization.norms import NoNorms
from fedbrats.personalization.unseen import CHOICES, check_choice, check_fits


@dataclass(frozen=True, kw_only=True)
class NormLocal(Personalization):
    """All arrays of normalisation layers stay at the site: of BatchNorm, InstanceNorm, GroupNorm, LayerNorm, RMSNorm.

    Without BatchNorm these are weights and biases. They are trained in the same steps as the rest, so with
    patient-level differential privacy they lie inside the private step: one clip over what travels and what stays,
    noise on both. What stays is then a by-product of the mechanism, and to keep it home is post-processing: epsilon is
    that of the same network without personalisation. (Trained without noise they would leak through what travels.)

    An institution that never trained gets the initial values ("initial": weights 1, biases 0) or the mean of the
    sites' ("average": they leave the sites once, after the last round). "recalibrate" and "instance" are for the
    statistics of BatchNorm, as in `BnLocal`.
    """

    keeps_state: ClassVar[bool] = True
    unseen: str = "initial"  # initial | average, with BatchNorm average | recalibrate | instance

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        check_choice(self.unseen, ("initial", *CHOICES))

    def stays(self, network: nn.Module, patch: Sequence[int]) -> tuple[str, ...]:
        """All arrays of normalisation layers.

        Raises:
            NoNorms: `network` has none.
            ConfigError: `unseen` does not fit its norms.
        """
        names = norm_arrays(network, NORMS)
        if not names:
            raise NoNorms(
                f"personalization=norm_local: {type(network).__name__} has no normalisation layer with arrays, so "
                "nothing would stay local"
            )
        check_fits(self.unseen, network)
        return names

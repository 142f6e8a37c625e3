"""FedBN (Li et al., ICLR 2021, arXiv 2102.07623)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fedbrats.models.norms import norm_arrays
from fedbrats.personalization.base import Personalization
from fedbrats.personalization.norms import NoNorms
from fedbrats.personalization.unseen import check_choice, check_fits

UNSOUND = (
    "BatchNorm mixes the patients of a batch, so no patient's part in an update can be bounded, and its running "
    "statistics are neither clipped nor noised; use personalization=norm_local and a network with GroupNorm or another "
    "norm that mixes nobody (`python sims/models.py` lists what works with patient-level DP)"
)


@dataclass(frozen=True, kw_only=True)
class BnLocal(Personalization):
    """Everything of BatchNorm stays at the site, weights, biases and running statistics; the rest is averaged.

    The paper's algorithm: after each round every layer l that is no BatchNorm becomes the mean over the sites,
    w_l <- sum_k n_k / n w_l,k, and every BatchNorm layer goes on with the site's own values.

    An institution that never trained has none: with `unseen` "average" it gets the mean of the sites' arrays, which
    then leave the sites once, after the last round; with "recalibrate" or "instance" it gets the initial weights and
    biases, and statistics from its own unlabelled scans or from each scan by itself.
    """

    keeps_state: ClassVar[bool] = True
    unseen: str = "recalibrate"  # average | recalibrate | instance

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        check_choice(self.unseen)

    def stays(self, network: nn.Module, patch: Sequence[int]) -> tuple[str, ...]:
        """All arrays of BatchNorm layers.

        Raises:
            NoNorms: `network` has none.
            ConfigError: `unseen` does not fit it.
        """
        names = norm_arrays(network)
        if not names:
            raise NoNorms(
                f"personalization=bn_local: {type(network).__name__} has no BatchNorm layer with arrays, so nothing "
                "would stay local; for other norms use personalization=norm_local"
            )
        check_fits(self.unseen, network)
        return names

    def unsound_with_dp(self) -> str | None:
        """BatchNorm itself is what makes it unsound."""
        return UNSOUND

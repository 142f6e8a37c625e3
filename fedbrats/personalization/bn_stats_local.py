"""SiloBN (Andreux et al., "Siloed federated learning for multi-centric histopathology datasets", arXiv 2008.07424)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fedbrats.models.norms import norm_arrays
from fedbrats.personalization.base import Personalization
from fedbrats.personalization.bn_local import UNSOUND
from fedbrats.personalization.norms import NoNorms
from fedbrats.personalization.unseen import check_choice


@dataclass(frozen=True, kw_only=True)
class BnStatsLocal(Personalization):
    """BatchNorm's running mean and variance stay at the site; its weights and biases are averaged like all the rest.

    The paper's local-statistic BatchNorm: the statistics of a site never leave it, all that is learned by gradients is
    learned together. `unseen` is as in `BnLocal`, except that an institution that never trained has the averaged
    weights and biases whatever it says; the authors recompute the statistics on its data.
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
        """Running means and variances of BatchNorm layers.

        Raises:
            NoNorms: `network` has none.
        """
        names = norm_arrays(network, parameters=False)
        if not names:
            raise NoNorms(
                f"personalization=bn_stats_local: {type(network).__name__} has no BatchNorm layer with running "
                "statistics, so nothing would stay local"
            )
        return names

    def unsound_with_dp(self) -> str | None:
        """BatchNorm itself is what makes it unsound."""
        return UNSOUND

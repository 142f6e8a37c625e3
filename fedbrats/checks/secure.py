"""What cannot be combined with secure aggregation, in which the server sees the sum of the replies and no reply."""

from __future__ import annotations

from collections.abc import Sequence

from fedbrats.config.schema import FEDERATED, Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.partition import Site
from fedbrats.federation.parts import Parts
from fedbrats.personalization.unseen import AVERAGE
from fedbrats.privacy.central import Central
from fedbrats.privacy.secure_aggregation.ring import FixedPoint, OutOfRange

ASKED, OFF = "privacy.secure_aggregation=true", "privacy.secure_aggregation=false"


def check_secure(config: Config, parts: Parts) -> None:
    """Check what depends on the configuration alone; the algorithm says itself what it needs (`Company`).

    Raises:
        ConfigError: something needs single replies, or sends them.
    """
    if FEDERATED not in config.arms:
        raise ConfigError(f"{ASKED}: nothing is sent in arms={config.arms}; add {FEDERATED}, or set {OFF}.")
    if isinstance(parts.privacy, Central):
        raise ConfigError(
            f"{ASKED} and privacy=central exclude each other: the server clips each site's update, which it would no "
            f"longer see, and noise that the sites add together is not there; set {OFF}, or privacy=dp_sgd, whose "
            "noise each site adds before the masks."
        )
    if parts.stays and parts.personalization is not None and parts.personalization.unseen == AVERAGE:
        raise ConfigError(
            f"{ASKED} and personalization.unseen={AVERAGE} exclude each other: each site would send the arrays that "
            "stay once, unmasked; set another personalization.unseen, one in which nothing of them leaves, or "
            f"{OFF}."
        )


def check_secure_sites(parts: Parts, sites: Sequence[Site]) -> None:
    """Check what depends on which site has which case.

    Args:
        parts: of the run.
        sites: that train.

    Raises:
        ConfigError: more cases than the fixed point has room for.
    """
    if parts.secure is None:
        return
    try:
        FixedPoint.of(sum(len(site.train) for site in sites), parts.secure.largest)
    except OutOfRange as error:
        raise ConfigError(f"{ASKED}: {error}.") from error

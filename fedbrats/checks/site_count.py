"""How many sites must train, whatever they hold."""

from __future__ import annotations

from fedbrats.config.targets import ConfigError
from fedbrats.federation.parts import Parts
from fedbrats.privacy.secure_aggregation.protocol import FEWEST


def check_count(parts: Parts, sites: int) -> None:
    """Check that `sites`, the number of sites that train, is enough.

    Raises:
        ConfigError: for the algorithm, or to hide in under secure aggregation.
    """
    needed = parts.algorithm.least_sites
    if sites < needed:
        raise ConfigError(
            f"strategy ({type(parts.algorithm).__name__}) needs {needed} sites that train, here are {sites}; let more "
            "sites take part, or choose another strategy."
        )
    if parts.secure is not None and sites < FEWEST:
        raise ConfigError(
            f"privacy.secure_aggregation=true needs {FEWEST} sites that train, here are {sites}: of two, each could "
            "take its own off the sum and see the other's; set privacy.secure_aggregation=false, or let more sites "
            "take part."
        )

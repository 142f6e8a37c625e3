"""Secure aggregation in the configuration: keys of the node `privacy` that stand beside any mechanism, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedbrats.config.targets import ConfigError

SWITCH, THRESHOLD, RANGE = "secure_aggregation", "secure_threshold", "secure_range"
KEYS = (SWITCH, THRESHOLD, RANGE)
MOST_RANGE = 2.0**40


@dataclass(frozen=True)
class SecureAggregation:
    """What the sites of a secure federation agree on."""

    threshold: float = 2 / 3  # share of the sites; more than that must stay to the end of a round
    largest: float = 65536.0  # absolute value of an element of an array that a site sends


def mechanism(privacy: Mapping[str, Any]) -> dict[str, Any]:
    """The node `privacy` without these keys: what clips and noises, {} where nothing does."""
    return {key: value for key, value in privacy.items() if key not in KEYS}


def secure_aggregation(privacy: Mapping[str, Any]) -> SecureAggregation | None:
    """What the node `privacy` says of secure aggregation; None where there is none.

    Raises:
        ConfigError: a value of another type or out of range, or one that would do nothing.
    """
    asked = privacy.get(SWITCH, False)
    if not isinstance(asked, bool):
        raise ConfigError(f"privacy.{SWITCH}={asked!r}: must be true or false.")
    given = {key: privacy[key] for key in (THRESHOLD, RANGE) if privacy.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"privacy.{key}={value!r}: must be a number, or null.")
        if not asked:
            raise ConfigError(
                f"privacy.{key}={value:g} does nothing without secure aggregation; set privacy.{SWITCH}=true, or "
                f"privacy.{key}=null."
            )
    if not asked:
        return None
    share = float(given.get(THRESHOLD, SecureAggregation.threshold))
    largest = float(given.get(RANGE, SecureAggregation.largest))
    if not 0.5 <= share < 1:
        raise ConfigError(
            f"privacy.{THRESHOLD}={share:g}: must lie in [0.5, 1), a share of the sites; with half of them or fewer "
            "the server could tell two halves different things and take both kinds of share."
        )
    if not 1 <= largest <= MOST_RANGE:
        raise ConfigError(f"privacy.{RANGE}={largest:g}: must lie in [1, {MOST_RANGE:g}].")
    return SecureAggregation(share, largest)


def without_unused(privacy: dict[str, Any]) -> dict[str, Any]:
    """The node as a run keeps it: these keys only where there is secure aggregation.

    Raises:
        ConfigError: as in `secure_aggregation`.
    """
    return privacy if secure_aggregation(privacy) is not None else mechanism(privacy)

"""Who takes part in a round of a simulated federation: who is asked, who cannot be reached, who comes too late."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.targets import ConfigError
from fedbrats.scenario.clock import Clock
from fedbrats.scenario.faults import check_faults
from fedbrats.scenario.poison import KINDS
from fedbrats.seeding import generator

IMAGES = ("scaled", "turned", "normalise")  # what is wrong with images, see scenario/faults.py
NO_REPLY = "failed: no reply, "  # how the status of a site that cannot be reached begins
AWAY = f"{NO_REPLY}the site is away (scenario.away)"
DROPPED = f"{NO_REPLY}dropped out (scenario.dropout)"
LATE = "late, after the deadline of the round (scenario.clock.deadline)"


@dataclass(frozen=True)
class Asked:
    """The sites of one round.

    drawn: who is asked, in the order of the sites; unreachable: who of them cannot be reached, with the status of its
    row; late: whose reply of the others comes too late to be used.
    """

    drawn: tuple[str, ...]
    unreachable: Mapping[str, str] = field(default_factory=dict)
    late: Collection[str] = ()

    @property
    def reachable(self) -> list[str]:
        """Who gets the question."""
        return [site for site in self.drawn if site not in self.unreachable]


@dataclass(frozen=True)
class Participation:
    """The rules of one run.

    config: `scenario`; seed: of the run; clock: where there is one.
    """

    config: ScenarioConfig
    seed: int
    clock: Clock | None = None

    def of(self, sites: Sequence[str], round_: int) -> Asked:
        """Who takes part in `round_` of the `sites` that would train; the same for a seed, whatever came before."""
        drawn = self._drawn(sites, round_)
        unreachable = {site: AWAY for site in drawn if self._away(site, round_)}
        for site in drawn:
            lost = generator(self.seed, "dropout", site, round_).random() < self.config.dropout
            if site not in unreachable and lost:
                unreachable[site] = DROPPED
        reachable = [site for site in drawn if site not in unreachable]
        return Asked(drawn, unreachable, self.clock.late(reachable, round_) if self.clock else [])

    def _drawn(self, sites: Sequence[str], round_: int) -> tuple[str, ...]:
        number = number_drawn(self.config, len(sites))
        if number == len(sites):
            return tuple(sites)
        chosen = generator(self.seed, "sample", round_).permutation(len(sites))[:number]
        return tuple(site for place, site in enumerate(sites) if place in chosen)

    def _away(self, site: str, round_: int) -> bool:
        return any(
            first <= round_ and (last is None or round_ <= last)
            for first, last in self.config.away.get(site, [])
        )

    def length(self, asked: Asked, round_: int) -> float | None:
        """Seconds of the round on the simulated clock, None without one."""
        if self.clock is None:
            return None
        answering = [site for site in asked.reachable if site not in asked.late]
        return self.clock.length(answering, len(answering) < len(asked.drawn), round_)


def number_drawn(scenario: ScenarioConfig, sites: int) -> int:
    """How many of so many sites are asked in a round."""
    sample = scenario.sample
    if sample is None or not sites:
        return sites
    return min(sites, max(1, math.ceil(sample * sites - 1e-9) if sample < 1 else int(sample)))


def check_scenario(scenario: ScenarioConfig) -> None:
    """Check what the configuration alone can tell.

    Raises:
        ConfigError: naming the key and the fix.
    """
    sample, clock = scenario.sample, scenario.clock
    if sample is not None and not (0 < sample < 1 or (sample >= 1 and sample == int(sample))):
        raise ConfigError(
            f"scenario.sample={sample}: a share of the sites between 0 and 1, or a whole number of them; null asks all."
        )
    if not 0 <= scenario.dropout < 1:
        raise ConfigError(f"scenario.dropout={scenario.dropout}: must lie in [0, 1), a probability.")
    for site, spans in scenario.away.items():
        if not isinstance(spans, list) or not all(_is_span(span) for span in spans):
            raise ConfigError(
                f"scenario.away.{site}={spans}: a list of [first, last] rounds, as [[3,5],[9,null]]; null is the end."
            )
    for site, kind in scenario.poisoned.items():
        if kind not in KINDS:
            raise ConfigError(f"scenario.poisoned.{site}={kind}: choose one of {', '.join(KINDS)}.")
    if not 0 < scenario.poison_strength < math.inf:
        raise ConfigError(f"scenario.poison_strength={scenario.poison_strength}: must be a positive number.")
    check_faults(scenario)
    for key in ("deadline", "budget", "horizon"):
        value = getattr(clock, key)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"scenario.clock.{key}={value}: must be a positive number of seconds, or null.")
        if value is not None and not clock.enabled and value != type(clock)().horizon:
            raise ConfigError(
                f"scenario.clock.{key}={value}: needs the clock; set scenario.clock.enabled=true."
            )
    if clock.table is not None and not clock.enabled:
        raise ConfigError(
            f"scenario.clock.table={clock.table}: needs the clock; set scenario.clock.enabled=true."
        )
    if not 0 <= clock.spread < 1:
        raise ConfigError(
            f"scenario.clock.spread={clock.spread}: must lie in [0, 1), a share of a site's seconds."
        )


def _is_span(span: Any) -> bool:
    if not isinstance(span, list) or len(span) != 2:
        return False
    first, last = span
    return (
        isinstance(first, int) and first >= 1 and (last is None or (isinstance(last, int) and last >= first))
    )


def check_sites(scenario: ScenarioConfig, sites: Collection[str]) -> None:
    """Check that the scenario names sites that train.

    Raises:
        ConfigError: it names others, or asks for more than there are.
    """
    for key in ("away", "poisoned", "wrong_labels", "unlabelled", "missing_modalities", *IMAGES):
        if strangers := sorted(getattr(scenario, key).keys() - set(sites)):
            raise ConfigError(f"scenario.{key} names {strangers}; the sites that train are {sorted(sites)}.")
    if scenario.sample is not None and scenario.sample >= 1 and scenario.sample > len(sites):
        raise ConfigError(
            f"scenario.sample={scenario.sample:g}: only {len(sites)} sites train; null asks all."
        )

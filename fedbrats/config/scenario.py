"""What can be configured of a scenario (`scenario`): what befalls a simulated federation, see `fedbrats/scenario`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ClockConfig:
    """A simulated clock, see scenario/clock.py; all times in seconds."""

    enabled: bool = False
    table: str | None = (
        None  # CSV: site, train and validate (per case), download and upload; None makes them up
    )
    spread: float = 0.0  # standard deviation of a site's time from round to round, a share of it
    deadline: float | None = None  # of a round; replies that come later are dropped
    budget: float | None = None  # of training in a round: a site makes as many steps as fit in
    horizon: float = 604_800.0  # seven days: the federation ends with the first round after it


@dataclass
class ScenarioConfig:
    """What befalls a simulated federation."""

    sample: float | None = None  # sites asked in a round: a share below 1 or a number; None asks all
    dropout: float = 0.0  # probability that an asked site cannot be reached in a round
    away: dict[str, Any] = field(
        default_factory=dict
    )  # site: [[first, last], ...] rounds; last null = for good
    clock: ClockConfig = field(default_factory=ClockConfig)
    poisoned: dict[str, str] = field(
        default_factory=dict
    )  # site: sign_flip | scale | noise | label_flip | backdoor, see scenario/poison.py
    poison_strength: float = 1.0
    wrong_labels: dict[str, str] = field(default_factory=dict)  # site: a kind of scenario/faults.py
    unlabelled: dict[str, list[str]] = field(default_factory=dict)  # site: regions that it has no labels for
    missing_modalities: dict[str, list[str]] = field(default_factory=dict)  # site: [t1, t1ce, t2, flair]
    scaled: dict[str, float] = field(default_factory=dict)  # site: factor of its intensities
    turned: dict[str, list[str]] = field(default_factory=dict)  # site: axes [x, y, z] that run the other way
    normalise: dict[str, str] = field(default_factory=dict)  # site: a kind of data/intensity.py

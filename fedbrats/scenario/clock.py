"""A simulated clock: how long the rounds of a federation would take, after the model of the FeTS challenge.

A site downloads the model, validates it, trains and uploads; a round is over when the last site that is waited for has
answered. FeTS (Zenk et al., Nature Communications 2025) gives seconds per patient and per transfer for each of its
collaborators, measured in the real federation, and draws every round's from a normal distribution. Here the seconds
come from a table of the user's; without one each site has its own, drawn once between the least and the most that FeTS
saw, so they are made up.

The convergence score is FeTS's, too: the area under the best mean Dice so far over the horizon (seven days), what was
best at the end held until then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from fedbrats.config.scenario import ClockConfig
from fedbrats.config.schema import TrainConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.tables import open_table
from fedbrats.seeding import generator
from fedbrats.training.amount import steps_of_site

HOUR = 3600.0


@dataclass(frozen=True)
class SiteTimes:
    """Seconds of one site: per case to train and to validate, per model to download and to upload."""

    train: float
    validate: float
    download: float
    upload: float


# Least and most of the FeTS challenge's collaborators.
RANGES = SiteTimes(train=(1.8, 20.7), validate=(9.7, 40.0), download=(13.0, 217.0), upload=(20.0, 431.0))  # type: ignore[arg-type]
COLUMNS = tuple(field.name for field in fields(SiteTimes))


def made_up(site: str) -> SiteTimes:
    """Times of a site of which nothing is known: the same for the same name, log-uniform within `RANGES`."""
    rng = generator(0, "clock", site)
    return SiteTimes(*(math.exp(rng.uniform(*np.log(getattr(RANGES, name)))) for name in COLUMNS))


def site_times(clock: ClockConfig, sites: Sequence[str]) -> dict[str, SiteTimes]:
    """Times of every site: of `clock.table` where one is named, else made up.

    Raises:
        ConfigError: the table lacks a site or a column, or holds something that is no positive number.
    """
    if clock.table is None:
        return {site: made_up(site) for site in sites}
    key, table = f"scenario.clock.table={clock.table}", open_table(Path(clock.table))
    if missing := [name for name in ("site", *COLUMNS) if name not in table]:
        raise ConfigError(f"{key}: no column {', '.join(missing)}; it has {', '.join(map(str, table))}.")
    rows = {str(row["site"]).strip(): row for row in table.to_dict("records")}
    if strangers := [site for site in sites if site not in rows]:
        raise ConfigError(f"{key}: no row for {', '.join(strangers)}; every site that trains needs one.")
    found = {}
    for site in sites:
        try:
            values = [float(rows[site][name]) for name in COLUMNS]
        except ValueError:
            values = [math.nan]
        if not all(0 <= value < math.inf for value in values):
            raise ConfigError(f"{key}: {site}: seconds must be numbers of at least 0.")
        found[site] = SiteTimes(*values)
    return found


@dataclass(frozen=True)
class Work:
    """What a site does in one round: cases that it trains on, one for every patch of it, and validates."""

    trained: float
    validated: int


def work_of(site: str, train_cases: int, val_cases: int, train: TrainConfig) -> Work:
    """The work of `site`, from its steps and their batches."""
    steps = steps_of_site(site, train, train_cases * train.patches_per_case / train.batch)
    return Work(steps * train.batch / train.patches_per_case, val_cases)


class Clock:
    """Seconds of the rounds of one federation."""

    def __init__(
        self, config: ClockConfig, times: Mapping[str, SiteTimes], work: Mapping[str, Work], seed: int
    ) -> None:
        """`times` and `work`: of every site that trains; `seed`: of the run."""
        self._config, self._times, self._work, self._seed = config, times, work, seed

    def seconds(self, site: str, round_: int) -> float:
        """How long `site` takes for `round_`, from when the server begins to send to when it has the reply."""
        times, work = self._times[site], self._work[site]
        whole = times.download + times.validate * work.validated + times.train * work.trained + times.upload
        if not self._config.spread:
            return whole
        drawn = generator(self._seed, "clock", site, round_).normal(1.0, self._config.spread)
        return whole * max(float(drawn), 0.1)  # nobody is ready before it began

    def late(self, sites: Sequence[str], round_: int) -> list[str]:
        """Those of `sites` whose reply comes after the deadline of the round."""
        deadline = self._config.deadline
        return [] if deadline is None else [s for s in sites if self.seconds(s, round_) > deadline]

    def length(self, answering: Sequence[str], others: bool, round_: int) -> float:
        """Seconds of a round: until the last of `answering` is there, or the deadline where `others` are waited for."""
        if others and self._config.deadline is not None:
            return self._config.deadline
        return max((self.seconds(site, round_) for site in answering), default=self._config.deadline or 0.0)


def steps_within(budget: float, times: SiteTimes, train: TrainConfig) -> int:
    """Optimiser steps that fit into `budget` seconds of training, at least one."""
    return max(1, math.floor(budget / (times.train * train.batch / train.patches_per_case) + 1e-9))


def convergence(hours: Sequence[float], worth: Sequence[float], horizon: float) -> float:
    """Area under the best score so far over `horizon` hours, as a share of it: FeTS's convergence score.

    Args:
        hours: at the end of each validated round, rising.
        worth: mean Dice of that round's model.
        horizon: hours. A round that ends after it has no part.
    """
    area, best, last = 0.0, 0.0, 0.0
    for now, score in zip(hours, worth, strict=True):
        if now > horizon:
            break
        area += best * (now - last)
        best, last = max(best, score), now
    return (area + best * (horizon - last)) / horizon

"""How many optimiser steps a site takes in one round."""

from __future__ import annotations

import math
from collections.abc import Collection

from fedbrats.config.schema import TrainConfig
from fedbrats.config.targets import ConfigError


def steps_per_round(site: str, cases: int, train: TrainConfig) -> int:
    """Optimiser steps of `site` with `cases` training cases in one round."""
    return steps_of_site(site, train, cases * train.patches_per_case / train.batch)


def steps_of_site(site: str, train: TrainConfig, epoch: float) -> int:
    """Optimiser steps of `site` in one round, its own work if named, else the common; `epoch`: steps in one epoch."""
    epochs = train.site_epochs.get(site, train.local_epochs)
    if site in train.site_steps:
        return train.site_steps[site]
    if site not in train.site_epochs and train.local_steps is not None:
        return train.local_steps
    assert epochs is not None, "check_config lets exactly one of local_steps and local_epochs through"
    return max(1, math.ceil(epochs * epoch - 1e-9))  # 1.1 * 50 is above 55


def check_site_names(train: TrainConfig, sites: Collection[str]) -> None:
    """Raise ConfigError when partial work is asked of a site that is not among the training `sites`."""
    for key in ("site_steps", "site_epochs"):
        strangers = sorted(getattr(train, key).keys() - set(sites))
        if strangers:
            raise ConfigError(f"train.{key} names {strangers}; the sites that train are {sorted(sites)}")

"""How many optimiser steps a site takes in one round."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from fedbrats.config.schema import TrainConfig
from fedbrats.config.targets import ConfigError

TOGETHER, IN_A_ROW, BOTH = "together", "in_a_row", "both"  # values of train.pooled_steps


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


def pooled_steps(members: Mapping[str, int], train: TrainConfig, in_a_row: bool = False) -> int:
    """Optimiser steps of a pooled arm in one round.

    As many as all sites take together, which is the computation of the federation in one row, or as many as the site
    takes that takes most. Steps of sites run beside each other, so a federated model has that many in a row only, and
    where training is short it is these that count.

    Args:
        members: training cases of each site.
        train: as configured.
        in_a_row: of the second arm that there is with `both`, which has as many as one site.
    """
    steps = [steps_per_round(site, cases, train) for site, cases in members.items()]
    return max(steps) if in_a_row or train.pooled_steps == IN_A_ROW else sum(steps)


def check_site_names(train: TrainConfig, sites: Collection[str]) -> None:
    """Raise ConfigError when partial work is asked of a site that is not among the training `sites`."""
    for key in ("site_steps", "site_epochs"):
        strangers = sorted(getattr(train, key).keys() - set(sites))
        if strangers:
            raise ConfigError(f"train.{key} names {strangers}; the sites that train are {sorted(sites)}")

"""What is filled in where a configuration says nothing: one thing for a simulation, another across hospitals."""

from __future__ import annotations

from dataclasses import replace

from fedbrats.algorithms.fedavg import SIMULATED, STRICT
from fedbrats.config.schema import Config
from fedbrats.runs.run_folder import SIMULATION_ENGINES


def with_quorum(config: Config) -> Config:
    """Say which share of the sites must answer: where nothing is said half of them in a simulation, else all."""
    if config.strategy.get("quorum") is not None:
        return config
    quorum = SIMULATED if config.runtime.engine in SIMULATION_ENGINES else STRICT
    return replace(config, strategy={**config.strategy, "quorum": quorum})


def with_one_exchange(config: Config) -> Config:
    """Say whether validation travels with training: where nothing is said, in a deployment in which nothing waits."""
    if config.runtime.one_exchange is not None:
        return config
    waits = config.train.schedule == "plateau" or config.train.stop_patience is not None
    joint = config.runtime.engine not in SIMULATION_ENGINES and not waits
    return replace(config, runtime=replace(config.runtime, one_exchange=joint))

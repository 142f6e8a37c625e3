"""What depends on the engine: what is filled in where a configuration says nothing, and what only one engine knows."""

from __future__ import annotations

from dataclasses import replace

from fedbrats.algorithms.fedavg import SIMULATED, STRICT
from fedbrats.config.schema import Config, RuntimeConfig
from fedbrats.config.targets import ConfigError
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


def check_one_exchange(config: Config) -> None:
    """Whether the next round waits for a validation decides whether they can travel together.

    Raises:
        ConfigError: naming both keys.
    """
    for key, needs in (
        ("train.schedule=plateau", config.train.schedule == "plateau"),
        (f"train.stop_patience={config.train.stop_patience}", config.train.stop_patience is not None),
    ):
        if config.runtime.one_exchange and needs:
            raise ConfigError(
                f"runtime.one_exchange=true: with {key} a round needs the validation of the one before; set it to null."
            )


def check_address(runtime: RuntimeConfig) -> None:
    """Check that only Ray is given the address of a cluster.

    Raises:
        ConfigError: another engine is.
    """
    if runtime.address is not None and runtime.engine != "ray":
        raise ConfigError(
            f"runtime.address={runtime.address}: of a Ray cluster, which runtime.engine={runtime.engine} does not use; "
            "set runtime=ray, or leave it out."
        )

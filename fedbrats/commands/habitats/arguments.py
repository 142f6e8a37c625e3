"""Arguments of `fedbrats habitats`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from fedbrats.commands.compose import compose_config, own_folder
from fedbrats.commands.per_case import read_words
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.metrics.survival import TAU
from fedbrats.models.feature_autoencoder import HIDDEN
from fedbrats.training.feature_autoencoder import Schedule

MOST_CLUSTERS = 20  # columns of the table


@dataclass
class HabitatConfig:
    """The command's own keys; every other key is one of `fedbrats run`."""

    output: str = "habitats"
    survival: str | None = None  # table of days
    alpha: float | None = None  # weight of stability; None is 0.5 with `survival` and 1 without
    tau: float = TAU
    gamma: list[float] = field(default_factory=lambda: [0.5, 1.0])  # from, to
    clusters: list[int] = field(default_factory=lambda: [3, 7])
    trials: int = 10  # K shuffles
    initial: int = 10
    steps: int = 20
    voxels: int = 1000  # of a case, to train and cluster on
    rounds: int = Schedule.rounds
    local_steps: int = Schedule.local_steps
    batch: int = Schedule.batch
    lr: float = Schedule.lr
    hidden: int = HIDDEN

    @property
    def weight(self) -> float:
        """Alpha, settled."""
        return self.alpha if self.alpha is not None else (0.5 if self.survival else 1.0)

    @property
    def schedule(self) -> Schedule:
        """Of the autoencoder."""
        return Schedule(self.rounds, self.local_steps, self.batch, self.lr, self.hidden)


def read_arguments(arguments: Sequence[str]) -> tuple[HabitatConfig, Config]:
    """The command's own values, and the configuration that the other arguments make, as `fedbrats run` reads them.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or out of range; the key is named.
    """
    folder, words = own_folder(arguments)
    names = {one.name for one in fields(HabitatConfig)}
    mine = [word for word in words if word.partition("=")[0] in names]
    config, _ = read_words(HabitatConfig, mine)
    assert config is not None  # no key is needed
    _check(config)
    return config, compose_config([word for word in words if word not in mine], folder)


def _check(config: HabitatConfig) -> None:
    for key in ("trials", "initial", "voxels", "rounds", "local_steps", "batch", "hidden"):
        if getattr(config, key) < 1:
            raise ConfigError(f"{key}={getattr(config, key)}: must be 1 or more.")
    if config.steps < 0:
        raise ConfigError(f"steps={config.steps}: must be 0 or more.")
    if not config.lr > 0 or not 0 < config.tau < 1:
        raise ConfigError(f"lr={config.lr}, tau={config.tau}: a positive number, and one between 0 and 1.")
    if len(config.gamma) != 2 or not 0 < config.gamma[0] <= config.gamma[1] <= 1:
        raise ConfigError(f"gamma={config.gamma}: from and to, above 0 and up to 1, such as [0.5,1].")
    if len(config.clusters) != 2 or not 2 <= config.clusters[0] <= config.clusters[1] <= MOST_CLUSTERS:
        raise ConfigError(f"clusters={config.clusters}: from and to, 2 to {MOST_CLUSTERS}, such as [3,7].")
    if not 0 <= config.weight <= 1:
        raise ConfigError(f"alpha={config.alpha}: must lie in [0, 1].")
    if config.weight < 1 and not config.survival:
        raise ConfigError(
            f"alpha={config.alpha}: significance needs survival=<table>; give it or set alpha=1."
        )

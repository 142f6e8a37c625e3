"""What of a run's configuration leaves with its model: what a prediction needs, and no path, institution or patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from fedbrats.config.schema import (
    POOLED,
    Config,
    DataConfig,
    InferenceConfig,
    MetricsConfig,
    PostprocessConfig,
    ReportConfig,
    RuntimeConfig,
)
from fedbrats.config.targets import ConfigError
from fedbrats.models.build import patch_of, window_of

PLAIN = {"_target_": "fedbrats.algorithms.fedavg.FedAvg"}  # nothing is aggregated from it any more


def portable(config: Config, inference: InferenceConfig, postprocess: PostprocessConfig) -> Config:
    """The configuration of a run as it leaves with one of its models.

    Where the data lay, who the sites are and how they were federated is left out; the window is written down, so that
    it no longer depends on the training patch.

    Args:
        config: of the run.
        inference: as the model is exported, without a localiser.
        postprocess: its steps with their values.

    Raises:
        ConfigError: a value that stays is a path of this machine; the message names its key.
    """
    train = replace(config.train, patch=patch_of(config), site_steps={}, site_epochs={}, init=None)
    asked = replace(config, inference=inference)
    found = Config(
        data=DataConfig(source="phantom"),
        model=config.model,
        loss=config.loss,
        strategy=PLAIN,
        train=train,
        inference=replace(inference, window=window_of(asked)),
        postprocess=postprocess,
        metrics=MetricsConfig(convention=config.metrics.convention),
        runtime=RuntimeConfig(amp=config.runtime.amp),
        report=ReportConfig(select=config.report.select),
        arms=[POOLED],
        rounds=config.rounds,
        seed=config.seed,
    )
    for key, value in _texts(asdict(found)):
        if value.startswith(("/", "~", "\\")) or value[1:3] == ":\\":
            raise ConfigError(
                f"{key}={value}: a path of this machine, which an export must not hold; train with a configuration "
                "without it."
            )
    return found


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text inside `node` with its key."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str):
        yield key, node

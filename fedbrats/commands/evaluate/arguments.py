"""The arguments of `fedbrats evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import MISSING, OmegaConf

from fedbrats.commands.words import assign
from fedbrats.config.schema import DataConfig, MetricsConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.annotators import refuse_counts
from fedbrats.data.families import AUTO, given

WORLD, VOXELS = "world", "voxels"


@dataclass
class LabelsConfig:
    """What the numbers in the label files mean: auto, a family, or {ncr: 1, ed: 2, et: 4}."""

    predictions: Any = AUTO
    references: Any = AUTO


@dataclass
class EvaluateConfig:
    """One evaluation."""

    predictions: str = MISSING  # label file, folder of them, or run folder with report.predictions
    references: str = MISSING  # label file or folder, such as the data.root of a run
    output: str = "evaluation"  # folder of cases.csv and summary.csv
    only_predicted: bool = False  # score the cases that have a prediction; a missing one is no failure
    grid: str = (
        WORLD  # world: voxels are compared where they lie; voxels: as they are stored, whatever headers say
    )
    max_voxels: int = DataConfig.max_voxels  # of one file
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)


def read_arguments(arguments: Sequence[str]) -> EvaluateConfig:
    """Read `key=value` arguments.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or a required key left out; the key is named.
    """
    config = OmegaConf.structured(EvaluateConfig)
    for argument in arguments:
        assign(config, EvaluateConfig, argument)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"missing: {', '.join(f'{key}=<file or folder>' for key in missing)}")
    settings = cast(EvaluateConfig, OmegaConf.to_object(config))
    if settings.grid not in (WORLD, VOXELS):
        raise ConfigError(f"grid={settings.grid}: choose {WORLD} or {VOXELS}.")
    for side in ("references", "predictions"):
        value, key = getattr(settings.labels, side), f"labels.{side}"
        given(value, key)
        refuse_counts(key, value, f"score files of counts with '{key}={{ncr: 2, ed: 1, et: 3}}'")
    return settings

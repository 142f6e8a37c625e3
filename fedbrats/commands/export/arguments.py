"""The arguments of `fedbrats export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import MISSING, OmegaConf

from fedbrats.commands.predict.arguments import INFERENCE, PredictConfig, inference_settings
from fedbrats.commands.words import assign
from fedbrats.config.schema import DataConfig, InferenceConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.families import AUTO, given
from fedbrats.export.exported import FORMATS
from fedbrats.export.int8 import CALIBRATION, INT8, LIMITS
from fedbrats.export.proof import DIFFERENCE, LOST


@dataclass
class ExportConfig:
    """One export. What is None is taken from the run, or follows from the format."""

    run: str = MISSING  # RUN[@ARM[@WHICH]]
    format: str = "bundle"  # bundle | onnx | int8
    data: str = MISSING  # folder of cases for the proof
    cases: int = 2  # of them, the first by name
    output: str = "export"
    max_difference: float | None = None  # of two probabilities of a voxel; see `limits`
    max_score_lost: float | None = None  # in any of the cases; see `limits`
    calibration: int | None = None  # format=int8: cases that give the ranges, after the proof's
    cache: str | None = None  # of preprocessed volumes
    postprocess: str | None = None  # name of a file of conf/postprocess
    histogram: str | None = None  # reference histogram of the site, JSON; None makes one of the cases
    labels: Any = AUTO  # what label numbers of the cases mean
    links: str = "inside"
    max_voxels: int = DataConfig.max_voxels
    trust: Any = field(default_factory=list)  # own packages that the run may name
    inference: list[str] = field(default_factory=list)  # the arguments `inference.*`


def read_arguments(arguments: Sequence[str]) -> ExportConfig:
    """Read `RUN[@ARM[@WHICH]] key=value ...`.

    Raises:
        ConfigError: no run, or several; an unknown key, a bad value or a required key left out; the key is named.
    """
    runs = [argument for argument in arguments if "=" not in argument]
    if len(runs) != 1:
        raise ConfigError(f"name one run, RUN[@ARM[@WHICH]], not {len(runs)}.")
    settings = OmegaConf.structured(ExportConfig)
    settings.run = runs[0]
    for argument in arguments:
        if argument not in runs and not argument.startswith(INFERENCE):
            if argument.startswith("run="):
                raise ConfigError(f"{argument}: the run is named without a key.")
            assign(settings, ExportConfig, argument)
    if OmegaConf.missing_keys(settings):
        raise ConfigError(
            "missing: data=<folder of cases>, on which the export is checked beside the original."
        )
    config = cast(ExportConfig, OmegaConf.to_object(settings))
    if config.format not in FORMATS:
        raise ConfigError(f"format={config.format}: choose one of {', '.join(FORMATS)}.")
    if config.cases < 1:
        raise ConfigError(f"cases={config.cases}: an export needs at least one case for its proof.")
    for key in ("max_difference", "max_score_lost"):
        if (limit := getattr(config, key)) is not None and not 0 <= limit < 1:
            raise ConfigError(f"{key}={limit}: must lie in [0, 1).")
    if (count := config.calibration) is not None:
        if config.format != INT8:
            raise ConfigError(f"calibration={count}: is for format={INT8} only; leave it out.")
        if count < 1:
            raise ConfigError(f"calibration={count}: the ranges of activations need at least one case.")
    given(config.labels, "labels")
    config.inference = [argument for argument in arguments if argument.startswith(INFERENCE)]
    inference_settings(InferenceConfig(), config.inference)
    return config


def limits(config: ExportConfig) -> tuple[float, float]:
    """The largest difference of two probabilities and the largest loss of Dice; the usual ones are of the format."""
    difference, lost = LIMITS if config.format == INT8 else (DIFFERENCE, LOST)
    asked, asked_lost = config.max_difference, config.max_score_lost
    return difference if asked is None else asked, lost if asked_lost is None else asked_lost


def calibration(config: ExportConfig) -> int:
    """How many cases give the ranges of activations; none but for format=int8."""
    if config.format != INT8:
        return 0
    return CALIBRATION if config.calibration is None else config.calibration


def as_prediction(config: ExportConfig) -> PredictConfig:
    """What `predict` is asked for when it predicts the cases of the proof with the original."""
    trust = config.trust if isinstance(config.trust, list) else [config.trust]
    return PredictConfig(
        checkpoint=[config.run],
        data=config.data,
        max_voxels=config.max_voxels,
        links=config.links,
        cache=config.cache,
        device="cpu",
        postprocess=config.postprocess,
        histogram=config.histogram,
        labels=config.labels,
        trust=[str(package) for package in trust],
        inference=config.inference,
    )

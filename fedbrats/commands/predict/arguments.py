"""The arguments of `fedbrats predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, OmegaConf

from fedbrats.commands.words import assign
from fedbrats.config.folder import conf_folder
from fedbrats.config.schema import DataConfig, InferenceConfig, PostprocessConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.families import AUTO, given

EXAMPLE = {"checkpoint": "RUN[@ARM[@WHICH]]", "data": "<folder of cases>"}
INFERENCE = "inference."


@dataclass
class ScoreConfig:
    """How predictions of labelled cases are scored."""

    convention: str | None = None  # brats2023 | captk | monai


@dataclass
class PredictConfig:
    """One prediction. What is None is taken from the run of the first member."""

    # RUN[@ARM[@WHICH]] or a folder of runs, or a list of them: an ensemble; a list in the list is one voice of it
    checkpoint: Any = MISSING
    data: str = MISSING  # folder of cases
    max_voxels: int = DataConfig.max_voxels  # of one file, the channels of a 4D file together
    links: str = "inside"  # "inside": links that leave the folder are errors; "follow": they are followed
    output: str = "predictions"
    cache: str | None = None  # of preprocessed volumes
    maps: bool = False  # write probability and uncertainty maps
    device: str = "auto"  # auto | cpu | cuda
    postprocess: str | None = None  # name of a file of conf/postprocess
    histogram: str | None = None  # reference histogram of the site, JSON; None makes one of the cases
    trust: Any = field(default_factory=list)  # own packages that the models' runs may name, one or a list
    labels: Any = AUTO  # what label numbers mean: auto, a family, or {ncr: 1, ed: 2, et: 4}
    metrics: ScoreConfig = field(default_factory=ScoreConfig)
    inference: list[str] = field(
        default_factory=list
    )  # the arguments `inference.*`, for `inference_settings`


def read_arguments(arguments: Sequence[str]) -> PredictConfig:
    """Read `key=value` arguments.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or a required key left out; the key is named.
    """
    settings = OmegaConf.structured(PredictConfig)
    for argument in arguments:
        if not argument.startswith(INFERENCE):
            assign(settings, PredictConfig, argument)
    if settings["inference"]:
        raise ConfigError("inference: give its keys one by one, such as inference.flips=true.")
    missing = sorted(OmegaConf.missing_keys(settings))
    if missing:
        raise ConfigError(f"missing: {', '.join(f'{key}={EXAMPLE[key]}' for key in missing)}")
    config = cast(PredictConfig, OmegaConf.to_object(settings))
    config.checkpoint, config.trust = _named(config.checkpoint), _texts(config.trust)
    if config.links not in ("inside", "follow") or config.max_voxels < 1:
        raise ConfigError(
            f"links={config.links}, max_voxels={config.max_voxels}: choose inside or follow, and at least 1 voxel."
        )
    given(config.labels, "labels")
    config.inference = [argument for argument in arguments if argument.startswith(INFERENCE)]
    inference_settings(InferenceConfig(), config.inference)  # a mistake shows before anything is loaded
    return config


def _named(checkpoint: Any) -> str | list[str | list[str]]:
    """The argument `checkpoint`, every name in it as text."""
    if not isinstance(checkpoint, list):
        return str(checkpoint)
    if not checkpoint or [] in checkpoint:
        raise ConfigError(f"checkpoint={checkpoint}: name at least one RUN[@ARM[@WHICH]] in every list.")
    if any(isinstance(text, list) for voice in checkpoint if isinstance(voice, list) for text in voice):
        raise ConfigError(
            f"checkpoint={checkpoint}: lists within a list are averaged, and go no deeper; [[A,B],C] is the form."
        )
    return [_texts(voice) if isinstance(voice, list) else str(voice) for voice in checkpoint]


def _texts(named: Any) -> list[str]:
    return [str(text) for text in (named if isinstance(named, list) else [named])]


def inference_settings(base: InferenceConfig, arguments: Sequence[str]) -> InferenceConfig:
    """`base` with what `inference.*` arguments change; `members.check_inference` looks at the values.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type; the key is named.
    """
    merged = OmegaConf.create({"inference": OmegaConf.structured(base)})
    for argument in arguments:
        assign(merged, InferenceConfig, argument, under=INFERENCE)
    return cast(InferenceConfig, OmegaConf.to_object(merged["inference"]))


def postprocess_settings(name: str, own: Path | None = None) -> PostprocessConfig:
    """The file `name` of conf/postprocess, or of that group in the user's own folder of configurations.

    Raises:
        ConfigError: no such file; the message lists those that exist.
    """
    folders = [conf_folder(), own] if own else [conf_folder()]
    files = {file.stem: file for folder in folders for file in (folder / "postprocess").glob("*.yaml")}
    if name not in files:
        raise ConfigError(f"postprocess={name}: choose one of {', '.join(sorted(files))}.")
    merged = OmegaConf.merge(OmegaConf.structured(PostprocessConfig), OmegaConf.load(files[name]))
    return cast(PostprocessConfig, OmegaConf.to_object(merged))

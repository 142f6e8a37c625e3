"""What a classification refuses before it begins: all that speaks of voxels, each with the fix."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from fedbrats.config.objective import ObjectiveConfig
from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.schema import (
    Config,
    InferenceConfig,
    MetricsConfig,
    ReportConfig,
    RunConfig,
    TrainConfig,
)
from fedbrats.config.survey import SurveyConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.whole import BRAIN
from fedbrats.federation.parts import Parts
from fedbrats.losses.in_round import in_round
from fedbrats.models.build import output_shape
from fedbrats.tasks.classification import CHANNELS

# Options of voxels, by group: they would do nothing, or what they do to labels has no meaning for one label of a case.
OF_VOXELS: tuple[tuple[str, type, tuple[str, ...]], ...] = (
    ("train", TrainConfig, ("tumour_share", "tumour_centre", "deep_supervision")),
    ("inference", InferenceConfig, ("window", "flips", "mc_passes", "locate")),
    ("metrics", MetricsConfig, ("more",)),
    ("report", ReportConfig, ("predictions", "published", "floor")),
    ("scenario", ScenarioConfig, ("poisoned", "wrong_labels", "unlabelled", "turned")),
    ("objective", ObjectiveConfig, ("region",)),
    ("run", RunConfig, ("baselines",)),
    ("survey", SurveyConfig, ("enabled",)),
)


def check_classifies(config: Config, parts: Parts) -> None:
    """Check that network and task fit together, and that a classification asks for nothing of voxels.

    Args:
        config: of the run.
        parts: that it names.

    Raises:
        ConfigError: naming the key and the fix.
    """
    try:
        shape = output_shape(parts.blank.eval(), parts.patch)
    except (ValueError, RuntimeError):
        return  # `check_network` says why the network does not take its patch
    if (len(shape) == 2) != parts.classifies:
        if parts.classifies:
            raise ConfigError(
                "task=classification: the network gives a value for every voxel; choose one that classifies, "
                "model=efficientnet3d, or task=segmentation."
            )
        raise ConfigError(
            "task=segmentation: the network gives one value for a case, none for its voxels; choose another model, or "
            "task=classification."
        )
    if not parts.classifies:
        if parts.rules.crop != BRAIN:
            raise ConfigError(
                f"model.input.crop={parts.rules.crop} and task=segmentation exclude each other: a segmentation finds "
                f"the tumour and is not told where it is; set model.input.crop={BRAIN}."
            )
        return
    if shape[1] != CHANNELS:
        raise ConfigError(f"model.out_channels={shape[1]}: a label that is 0 or 1 has {CHANNELS}.")
    _check_loss(parts.loss)
    if config.postprocess.steps:
        raise ConfigError("postprocess: there are no voxels to process; set postprocess=none.")
    if config.train.augment == "mining":
        raise ConfigError(
            "train.augment=mining and task=classification exclude each other: it leaves nothing but the tumour, which "
            "nobody has drawn there; choose another, such as flips."
        )
    for group, kind, names in OF_VOXELS:
        defaults = {field.name: field for field in fields(kind)}
        for name in names:
            value = getattr(getattr(config, group), name)
            if value != _default(defaults[name]):
                raise ConfigError(
                    f"{group}.{name}={value} and task=classification exclude each other: it is about voxels and their "
                    f"scores, and there is one label of a whole case; leave it at {_default(defaults[name])}."
                )


def _check_loss(loss: Any) -> None:
    """A loss of overlap finds no voxels to sum over, and takes the cases of a batch for them without saying so."""
    value, logits, target = in_round(loss, 1, 1), torch.tensor([[0.5], [-1.0]]), torch.tensor([[1.0], [0.0]])
    try:
        first, second = value(logits, target), value(logits * torch.tensor([[1.0], [3.0]]), target)
        alone = tuple(first.shape) == (2,) and bool(first[0] == second[0])
    except Exception:
        alone = False
    if not alone:
        raise ConfigError(
            "loss: one value per case has no overlap, and this loss is not one of each case by itself; choose "
            "loss=cross_entropy, focal or topk."
        )


def _default(field: Any) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default

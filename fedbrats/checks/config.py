"""Checks of a configuration's values, before any work starts; `config/schema.py` says what there is to set."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fedbrats.algorithms.base import Company
from fedbrats.checks.annotators import check_annotators
from fedbrats.checks.by_engine import check_address, check_one_exchange, with_quorum
from fedbrats.checks.classification import check_classifies
from fedbrats.checks.planned import check_model_plan, refuse_by_hand, with_plan_asked
from fedbrats.checks.privacy import check_privacy
from fedbrats.checks.scenario import check_with_network
from fedbrats.checks.secure import check_secure
from fedbrats.config.critic import check_critic
from fedbrats.config.interpolations import refuse_environment
from fedbrats.config.objective import ALL, MEAN, WORST_SITE, ObjectiveConfig
from fedbrats.config.paths import with_absolute_paths
from fedbrats.config.schema import (
    ARMS,
    Config,
    DataConfig,
    InferenceConfig,
    MetricsConfig,
    PartitionConfig,
    RuntimeConfig,
    TrainConfig,
    typed,
)
from fedbrats.config.secure import mechanism
from fedbrats.config.survey import check_survey
from fedbrats.config.targets import ConfigError
from fedbrats.config.task import check_task
from fedbrats.config.vat import check_vat
from fedbrats.config.versions import ANY, SAME
from fedbrats.data.augmentation import AUGMENTS
from fedbrats.data.families import given
from fedbrats.data.institutions import check_options
from fedbrats.data.patches import CENTRES
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.models.build import check_beside, check_loss, check_network, dimensions
from fedbrats.models.node import check_size, with_size
from fedbrats.personalization.base import Personalization, local_and_travelling
from fedbrats.personalization.norms import NoNorms, norm_choices
from fedbrats.postprocess.steps import check_steps
from fedbrats.privacy.central import Central
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.scenario.participation import check_scenario
from fedbrats.tasks import segmentation as task
from fedbrats.training.amount import BOTH, IN_A_ROW, TOGETHER
from fedbrats.training.schedule import SCHEDULES, problem_of_milestones

ENGINES = ("local", "ray", "superlink")
STOP_NEVER = "train.stop_patience=null"


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def _choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{key}={value}: choose one of {', '.join(allowed)}.")


def _at_least(key: str, value: float | None, least: float) -> None:
    if value is not None:
        _require(
            math.isfinite(value) and value >= least, f"{key}={value}: must be a number of at least {least:g}."
        )


def checked(config: DictConfig | Config, base: Path | None = None) -> Config:
    """The configuration as dataclasses, checked, every path in it absolute.

    Args:
        config: as it was asked for.
        base: folder that relative paths start from; None is the working directory.

    Raises:
        ConfigError: a value is missing or out of range, an option is unknown, or two exclude each other; the
            message names the key and the fix.
    """
    if isinstance(config, DictConfig):
        refuse_environment(OmegaConf.to_container(config, resolve=False))
        check_size(config)
        refuse_by_hand(config)
        config = with_size(config)
    # Before any part is built, so that none is built twice.
    found = with_plan_asked(with_quorum(with_absolute_paths(typed(config), base)), base)
    check_config(found)
    return found


def check_config(config: Config) -> None:
    """Check every value that the types alone cannot.

    Raises:
        ConfigError: naming the key and the fix.
    """
    _require(bool(config.arms), f"arms=[]: name at least one of {', '.join(ARMS)}.")
    for arm in config.arms:
        _choice("arms", arm, ARMS)
    _require(len(set(config.arms)) == len(config.arms), f"arms={config.arms}: each arm once.")
    _at_least("rounds", config.rounds, 1)
    _at_least("seed", config.seed, 0)
    _check_data(config.data, config.partition)
    check_task(config.task, config.data.phantom.label_strength, config.data.source == "phantom")
    _check_train(config.train)
    _check_stopping(config)
    check_one_exchange(config)
    check_address(config.runtime)
    _check_runtime(config.runtime, config.metrics, config.inference)
    _choice("run.versions", config.run.versions, (SAME, ANY))
    _choice("run.code", config.run.code, (SAME, ANY))
    _at_least("run.jobs_per_gpu", config.run.jobs_per_gpu, 1)
    _check_objective(config.objective)
    check_scenario(config.scenario)
    _choice("report.select", config.report.select, ("best", "last"))
    floor = config.report.floor
    _require(
        floor is None or 0 < floor < 1,
        f"report.floor={floor}: must lie in (0, 1), the share of the brain that is darker than tumour, or be null.",
    )
    _check_targets(config)


def _check_objective(objective: ObjectiveConfig) -> None:
    _choice("objective.score", objective.score, (MEAN, WORST_SITE))
    _choice("objective.region", objective.region, (ALL, *task.REGIONS))
    epsilon = objective.max_epsilon
    _require(epsilon is None or epsilon > 0, f"objective.max_epsilon={epsilon}: must be positive, or null.")


def _check_targets(config: Config) -> None:
    """Check and build what the configuration names, the network with a patch through it."""
    parts = parts_of(config)
    check_model_plan(config, parts)
    check_classifies(config, parts)
    channels = check_network(config, parts.blank)
    kind = 0 if parts.classifies else dimensions(parts.blank)
    check_loss(parts.loss, channels, kind)
    check_annotators(config, parts, channels)
    check_beside(config, parts.blank, parts.loss)
    check_with_network(config, parts, channels)
    check_survey(config.survey, "federated" in config.arms, isinstance(parts.privacy, DpSgd))
    own_steps = parts.personalization is not None and parts.personalization.own_steps
    check_vat(config.train.vat, isinstance(parts.privacy, DpSgd), own_steps)
    check_critic(config.train.critic, kind, isinstance(parts.privacy, DpSgd), own_steps)
    if parts.personalization is not None:
        _check_personal(config, parts.personalization, parts)
    _check_algorithm(config, parts)
    if parts.secure is not None:
        check_secure(config, parts)
    if mechanism(config.privacy):
        check_privacy(config, parts, channels, kind)
    try:
        check_steps(parts.steps, channels)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_algorithm(config: Config, parts: Parts) -> None:
    """What the algorithm of the federation cannot be combined with, it says itself."""
    company = Company(
        patient_privacy=isinstance(parts.privacy, DpSgd),
        central_privacy=isinstance(parts.privacy, Central),
        secure_aggregation=parts.secure is not None,
        personal=parts.personalization is not None,
        own_start=parts.personalization is not None and parts.personalization.own_start,
        optimizer=parts.optimizer,
        clip_norm=config.train.clip_norm,
        network=parts.blank,
    )
    if reason := parts.algorithm.refuses(company):
        raise ConfigError(f"strategy ({type(parts.algorithm).__name__}) {reason}.")


def _check_personal(config: Config, personal: Personalization, parts: Parts) -> None:
    """Something must stay or be trained for a site, and what sites remember must fit the model that is tested."""
    _require(
        "federated" in config.arms,
        f"personalization: arms={config.arms} has no federated model to personalise; add federated, or set "
        "personalization=none.",
    )
    try:
        stays = parts.stays
    except NoNorms as error:
        choices = norm_choices(personal, config.model, parts.patch)
        raise ConfigError(f"{error}; {choices}.") from error
    local_and_travelling(parts.blank, stays)
    _require(
        not personal.keeps_state or config.report.select == "last",
        f"report.select={config.report.select} and this personalization exclude each other: sites keep their own "
        "arrays of the last round only; set report.select=last.",
    )


def _check_data(data: DataConfig, partition: PartitionConfig) -> None:
    _choice("data.source", data.source, ("folder", "phantom"))
    _choice("data.on_bad_case", data.on_bad_case, ("fail", "skip"))
    _at_least("data.max_voxels", data.max_voxels, 1)
    _choice("data.links", data.links, ("inside", "follow"))
    _require(data.source == "phantom" or bool(data.root), "data.root: name the folder that holds the cases.")
    given(data.labels, "data.labels")
    check_options(partition)


def _check_train(train: TrainConfig) -> None:
    _require(
        (train.local_steps is None) != (train.local_epochs is None),
        "train.local_steps and train.local_epochs exclude each other: set one and the other to null.",
    )
    _choice("train.pooled_steps", train.pooled_steps, (TOGETHER, IN_A_ROW, BOTH))
    both = sorted(train.site_steps.keys() & train.site_epochs.keys())
    _require(not both, f"train.site_steps and train.site_epochs both name {', '.join(both)}: keep one.")
    for name, steps in {"local_steps": train.local_steps, **train.site_steps}.items():
        _at_least(f"train ({name})", steps, 1)
    for name, epochs in {"local_epochs": train.local_epochs, **train.site_epochs}.items():
        _require(epochs is None or epochs > 0, f"train ({name})={epochs}: must be positive.")
    _sides("train.patch", train.patch)
    _at_least("train.batch", train.batch, 1)
    _at_least("train.patches_per_case", train.patches_per_case, 1)
    _require(
        train.tumour_share == 0 or 1 / 3 <= train.tumour_share <= 1,
        f"train.tumour_share={train.tumour_share}: must be 0 or lie in [1/3, 1], a share of the patches.",
    )
    _choice("train.tumour_centre", train.tumour_centre, CENTRES)
    _choice("train.augment", train.augment, AUGMENTS)
    _choice("train.schedule", train.schedule, SCHEDULES)
    problem = problem_of_milestones(train.schedule, train.milestones)
    _require(problem is None, str(problem))
    for key in ("warmup", "plateau_patience", "plateau_cooldown"):
        _at_least(f"train.{key}", getattr(train, key), 0)
    _require(
        0 < train.plateau_factor < 1, f"train.plateau_factor={train.plateau_factor}: must lie in (0, 1)."
    )
    weights = train.deep_supervision
    _require(
        weights is None or (min(weights, default=-1) >= 0 and sum(weights) > 0),
        f"train.deep_supervision={weights}: weights >= 0, not all zero, one per output of the network.",
    )
    _require(
        train.clip_norm is None or train.clip_norm > 0,
        f"train.clip_norm={train.clip_norm}: must be positive.",
    )


def _check_stopping(config: Config) -> None:
    """Early stopping needs what it watches, and models that do not wait for the last round."""
    patience = config.train.stop_patience
    if patience is None:
        return
    key = f"train.stop_patience={patience}"
    _at_least("train.stop_patience", patience, 1)
    _require(
        config.partition.val > 0 or config.partition.fold is not None,
        f"{key}: there is no validation loss to watch; set partition.val or partition.fold, or {STOP_NEVER}.",
    )
    _require(
        not config.personalization,
        f"{key} and personalization exclude each other: what sites keep is that of the last round; set {STOP_NEVER}.",
    )


def _check_runtime(runtime: RuntimeConfig, metrics: MetricsConfig, inference: InferenceConfig) -> None:
    _choice("runtime.engine", runtime.engine, ENGINES)
    _choice("runtime.device", runtime.device, ("auto", "cpu", "cuda"))
    _at_least("runtime.workers", runtime.workers, 0)
    for key in ("threads", "evaluate_every", "checkpoint_every", "keep_checkpoints"):
        _at_least(f"runtime.{key}", getattr(runtime, key), 1)
    fraction = runtime.memory_fraction
    _require(
        fraction is None or 0 < fraction <= 1, f"runtime.memory_fraction={fraction}: must lie in (0, 1]."
    )
    _choice("metrics.convention", metrics.convention, ("brats2023", "captk", "monai"))
    _require(0 <= inference.overlap < 1, f"inference.overlap={inference.overlap}: must lie in [0, 1).")
    _at_least("inference.batch", inference.batch, 1)
    _sides("inference.window", inference.window)
    _at_least("inference.mc_passes", inference.mc_passes, 0)
    _choice("inference.combine", inference.combine, ("average", "vote", "staple"))
    _require(
        len(inference.locate_crop) == 3 and min(inference.locate_crop) >= 8,
        f"inference.locate_crop={inference.locate_crop}: three sides of 8 or more voxels.",
    )


def _sides(key: str, sides: list[int] | None) -> None:
    _require(
        sides is None or (len(sides) in (2, 3) and min(sides) >= 8),
        f"{key}={sides}: three sides of 8 or more voxels, two for a 2D network, or null for the model's own.",
    )

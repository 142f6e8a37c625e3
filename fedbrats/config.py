"""The typed configuration of a run: one dataclass per Hydra group, every value checked before any work starts.

Groups whose content names a class (`model`, `loss`, `strategy`, `train.optimizer`) carry a Hydra `_target_` and
are checked against that class's own signature; all other groups are the dataclasses below, so that Hydra itself
refuses an unknown key by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from fedbrats.targets import ConfigError, build_once, check_target

ARMS = ("federated", "pooled", "local")


@dataclass
class PhantomConfig:
    """The built-in synthetic data set (`data=phantom`), written as real NIfTI files in BraTS naming."""

    sites: Any = "demo"  # preset ("demo", "fets2022") or a mapping institution -> number of cases
    shape: list[int] = field(default_factory=lambda: [64, 64, 48])  # voxels
    shift: float = 1.0  # strength of the scanner differences between institutions, 0 = identical scanners
    seed: int = 0


@dataclass
class DataConfig:
    """Where the cases are and how they are read."""

    source: str = "folder"  # "folder" (any BraTS layout under root) or "phantom" (generated into root)
    root: str | None = None
    cache: str = "outputs/cache"  # preprocessed volumes, shared by all runs
    on_bad_case: str = "fail"  # "fail" or "skip"
    et_label: int | None = None  # number of enhancing tumour in the files (3 or 4); None recognises it
    phantom: PhantomConfig = field(default_factory=PhantomConfig)


@dataclass
class PartitionConfig:
    """Which site holds which case, and which cases each site trains, validates and tests on."""

    method: str = "institution"  # institution | fets | iid | dirichlet | quantity
    table: str | None = None  # CSV that maps cases to institutions
    case_column: str | None = None  # header of the case column; None recognises the usual ones
    site_column: str | None = None  # header of the institution column; None recognises the usual ones
    unknown: str | None = None  # institution that takes cases without one; None refuses them
    holdout: list[str] = field(default_factory=list)  # institutions that are evaluated but never train
    sites: int = 5  # number of sites of the control partitions
    alpha: float = 0.5  # concentration of `dirichlet` and skew of `quantity`; small = unequal
    val: float = 0.15  # share of each site's patients
    test: float = 0.25  # share of each site's patients
    seed: int = 0  # of the control partitions and the split; kept apart from the training seed


@dataclass
class TrainConfig:
    """What one site does in one round."""

    optimizer: dict[str, Any] = field(default_factory=dict)  # Hydra partial, called with the parameters
    patch: list[int] = field(default_factory=lambda: [32, 32, 32])  # voxels
    batch: int = 2
    local_steps: int | None = None  # optimiser steps per round; excludes local_epochs
    local_epochs: float | None = None  # passes over a site's training cases per round
    site_steps: dict[str, int] = field(default_factory=dict)  # partial work: steps per round of named sites
    site_epochs: dict[str, float] = field(
        default_factory=dict
    )  # partial work: epochs per round of named sites
    patches_per_case: int = 1  # patches drawn from a case in one epoch
    tumour_share: float = 0.5  # share of patches centred on tumour, at least 1/3
    augment: bool = True  # random flips, intensity scale and shift
    schedule: str = "constant"  # constant | poly | cosine, of the learning rate over the global rounds
    warmup: int = 0  # rounds of linear warm-up
    clip_norm: float | None = None  # of the gradient, per step
    keep_optimizer: bool = False  # federated sites keep their optimiser state between rounds


@dataclass
class InferenceConfig:
    """Sliding-window inference (MONAI, Gaussian weights)."""

    window: list[int] | None = None  # voxels; None takes the training patch
    overlap: float = 0.5
    batch: int = 2


@dataclass
class MetricsConfig:
    """How predictions are scored."""

    convention: str = "brats2023"  # brats2023 | captk | monai
    bootstrap: int = 2000  # resamples of the 95 % interval over cases


@dataclass
class RuntimeConfig:
    """Where the work is done."""

    engine: str = "local"  # local | ray
    workers: int | None = None  # processes; 0 = this process, None = one per core (CPU) or one per GPU
    threads: int = 1  # torch threads of a worker
    device: str = "auto"  # auto | cpu | cuda
    amp: bool = True  # bf16 autocast on a GPU; no effect on a CPU
    memory_fraction: float | None = None  # of the GPU for each worker; None shares it equally
    evaluate_every: int = 1  # rounds between validations
    checkpoint_every: int = 1  # rounds between checkpoints


@dataclass
class ReportConfig:
    """What is left besides the tables."""

    select: str = "best"  # model that is tested: "best" on validation or "last"
    predictions: bool = False  # write the test predictions as NIfTI
    html: bool = True


@dataclass
class RunConfig:
    """Housekeeping of one run."""

    resume: str | None = None  # run folder to continue


@dataclass
class Config:
    """One run."""

    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    model: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    strategy: dict[str, Any] = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    run: RunConfig = field(default_factory=RunConfig)
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    rounds: int = 10
    seed: int = 0


def register() -> None:
    """Make the schema known to Hydra; `conf/config.yaml` names it first in its defaults."""
    ConfigStore.instance().store(name="schema", node=Config)


def load_config(file: Path) -> Config:
    """The resolved configuration of a run, as `save_config` wrote it.

    Raises:
        ConfigError: the file is not a configuration of this version.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(file))
    except Exception as error:
        raise ConfigError(f"{file}: not a configuration of this version of fedbrats ({error})") from error
    return cast(Config, OmegaConf.to_object(merged))


def save_config(config: Config, file: Path) -> None:
    """Write the complete configuration as YAML."""
    file.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def typed(config: DictConfig | Config) -> Config:
    """The configuration as dataclasses, checked.

    Raises:
        ConfigError: a value is missing or out of range, an option is unknown, or two exclude each other; the
            message names the key and the fix.
    """
    if isinstance(config, DictConfig):
        try:
            # Merged anew, because a key added with "+" has passed by the schema.
            merged = OmegaConf.merge(
                OmegaConf.structured(Config), OmegaConf.to_container(config, resolve=True)
            )
            config = cast(Config, OmegaConf.to_object(merged))
        except Exception as error:
            raise ConfigError(str(error)) from error
    check_config(config)
    return config


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
    _check_train(config.train)
    _check_runtime(config.runtime, config.metrics, config.inference)
    _choice("report.select", config.report.select, ("best", "last"))
    named = {key: getattr(config, key) for key in ("model", "loss", "strategy")}
    for key, node in (named | {"train.optimizer": config.train.optimizer}).items():
        check_target(key, node)
    build_once(named, config.train.optimizer)


def _check_data(data: DataConfig, partition: PartitionConfig) -> None:
    _choice("data.source", data.source, ("folder", "phantom"))
    _choice("data.on_bad_case", data.on_bad_case, ("fail", "skip"))
    _require(data.source == "phantom" or bool(data.root), "data.root: name the folder that holds the cases.")
    _require(data.et_label in (None, 3, 4), f"data.et_label={data.et_label}: must be 3, 4 or null.")
    _choice("partition.method", partition.method, ("institution", "fets", "iid", "dirichlet", "quantity"))
    for key in ("val", "test"):
        share = getattr(partition, key)
        _require(
            0 <= share < 1, f"partition.{key}={share}: must lie in [0, 1), a share of a site's patients."
        )
    _require(
        partition.val + partition.test < 1,
        f"partition.val={partition.val} and partition.test={partition.test} leave nothing to train on.",
    )


def _check_train(train: TrainConfig) -> None:
    _require(
        (train.local_steps is None) != (train.local_epochs is None),
        "train.local_steps and train.local_epochs exclude each other: set one and the other to null.",
    )
    both = sorted(train.site_steps.keys() & train.site_epochs.keys())
    _require(not both, f"train.site_steps and train.site_epochs both name {', '.join(both)}: keep one.")
    for name, steps in {"local_steps": train.local_steps, **train.site_steps}.items():
        _at_least(f"train ({name})", steps, 1)
    for name, epochs in {"local_epochs": train.local_epochs, **train.site_epochs}.items():
        _require(epochs is None or epochs > 0, f"train ({name})={epochs}: must be positive.")
    _require(
        len(train.patch) == 3 and min(train.patch) >= 8,
        f"train.patch={train.patch}: three sides of 8 or more voxels.",
    )
    _at_least("train.batch", train.batch, 1)
    _at_least("train.patches_per_case", train.patches_per_case, 1)
    _require(
        1 / 3 <= train.tumour_share <= 1,
        f"train.tumour_share={train.tumour_share}: must lie in [1/3, 1], a share of the patches.",
    )
    _choice("train.schedule", train.schedule, ("constant", "poly", "cosine"))
    _at_least("train.warmup", train.warmup, 0)
    _require(
        train.clip_norm is None or train.clip_norm > 0,
        f"train.clip_norm={train.clip_norm}: must be positive.",
    )


def _check_runtime(runtime: RuntimeConfig, metrics: MetricsConfig, inference: InferenceConfig) -> None:
    _choice("runtime.engine", runtime.engine, ("local", "ray"))
    _choice("runtime.device", runtime.device, ("auto", "cpu", "cuda"))
    _at_least("runtime.workers", runtime.workers, 0)
    for key in ("threads", "evaluate_every", "checkpoint_every"):
        _at_least(f"runtime.{key}", getattr(runtime, key), 1)
    fraction = runtime.memory_fraction
    _require(
        fraction is None or 0 < fraction <= 1, f"runtime.memory_fraction={fraction}: must lie in (0, 1]."
    )
    _choice("metrics.convention", metrics.convention, ("brats2023", "captk", "monai"))
    _at_least("metrics.bootstrap", metrics.bootstrap, 1)
    _require(0 <= inference.overlap < 1, f"inference.overlap={inference.overlap}: must lie in [0, 1).")
    _at_least("inference.batch", inference.batch, 1)
    window = inference.window
    _require(
        window is None or len(window) == 3, f"inference.window={window}: three sides in voxels, or null."
    )

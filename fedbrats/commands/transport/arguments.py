"""Arguments of `fedbrats transport`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import OmegaConf

from fedbrats.commands.words import assign
from fedbrats.config.schema import DataConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data import transport
from fedbrats.data.annotators import refuse_counts
from fedbrats.data.families import AUTO

OWN_LABELS = "labels"  # of `around`: each case's own label
LARGEST = 256  # voxels along a side of the cube; two indices of 4 bytes are kept for each


@dataclass
class TransportConfig:
    """One call of the command: to the cube (`data`), or back from it (`back`)."""

    data: str | None = None  # folder of cases
    output: str = "transport"
    size: int = transport.SIZE
    exponent: float = transport.EXPONENT
    steps: int = transport.STEPS
    around: str | None = None  # second phase: labels, or a folder of <case>.nii.gz on the grid of the cases
    margin: float = transport.MARGIN  # voxels
    labels: Any = AUTO
    back: str | None = None  # folder of <case>.nii.gz in the cubes
    maps: str | None = None  # output of the call that made the cubes
    links: str = "inside"
    max_voxels: int = DataConfig.max_voxels


def read_arguments(arguments: Sequence[str]) -> TransportConfig:
    """Read `key=value` arguments.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or out of range, or keys that exclude each other; the
            key is named.
    """
    settings = OmegaConf.structured(TransportConfig)
    for argument in arguments:
        assign(settings, TransportConfig, argument)
    config = cast(TransportConfig, OmegaConf.to_object(settings))
    _check_together(config, {argument.partition("=")[0] for argument in arguments})
    if not 8 <= config.size <= LARGEST:
        raise ConfigError(f"size={config.size}: a cube of 8 to {LARGEST} voxels a side.")
    if not (math.isfinite(config.exponent) and 0 <= config.exponent <= 10):
        raise ConfigError(f"exponent={config.exponent}: a number from 0 (every voxel alike) to 10.")
    if not 0 <= config.steps <= 1000:
        raise ConfigError(f"steps={config.steps}: a number from 0 (the rearrangement alone) to 1000.")
    if not (math.isfinite(config.margin) and config.margin >= 0):
        raise ConfigError(f"margin={config.margin}: must be a number of at least 0.")
    if config.links not in ("inside", "follow") or config.max_voxels < 1:
        raise ConfigError(
            f"links={config.links}, max_voxels={config.max_voxels}: choose inside or follow, and at least 1 voxel."
        )
    return config


def _check_together(config: TransportConfig, said: set[str]) -> None:
    refuse_counts("labels", config.labels, "leave it out, so that the label file of each case is mapped")
    if config.back is None:
        if config.data is None:
            raise ConfigError(
                "missing: data=<folder of cases>, or back=<labels in cubes> maps=<folder of cubes>"
            )
        if config.maps is not None:
            raise ConfigError(
                f"maps={config.maps}: only the way back needs maps; remove it or give back=<labels>."
            )
        if config.around is None and "margin" in said:
            raise ConfigError(f"margin={config.margin}: around what? Give around=labels or around=<folder>.")
        if config.around is not None and config.exponent == 0:
            raise ConfigError("exponent=0: enlarges nothing; remove around, or raise exponent.")
        return
    if config.maps is None:
        raise ConfigError("back: needs maps=<folder of cubes>, the output of the call that made them.")
    only = {"data", "size", "exponent", "steps", "around", "margin", "labels"} & said
    if only:
        raise ConfigError(f"{', '.join(sorted(only))}: the maps hold this, back takes none of it; remove it.")

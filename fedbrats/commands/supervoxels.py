"""Cut each case into supervoxels that look alike, without labels and without training.

    fedbrats supervoxels data=<folder of cases> [output=supervoxels] [merge=false]

Into the output folder go <case>_supervoxels.nii.gz in the space of the case, one number for each supervoxel and 0
outside the brain, and supervoxels.csv: how many there were before and after merging, seconds, and where the case has a
label the achievable segmentation accuracy in its tumour before and after (the best that a choice of them could reach).

cell=[10,10,10] (voxels between seeds) compactness=0.1 epsilon=0.01 alpha=0.5 beta=0.1 gamma=0.1: as published.
links=inside|follow (links that leave the folder) max_voxels=134217728 (of one file). The exit status is 0, 1 if a case
failed, 2 if the command cannot be used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from fedbrats.commands.per_case import Say, exit_status, read_words
from fedbrats.commands.volumes import read_volumes
from fedbrats.commands.words import path
from fedbrats.config.schema import DataConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.finding import find_cases
from fedbrats.data.nifti import write_labels
from fedbrats.data.stream import Bounds
from fedbrats.data.walking import bounds_of
from fedbrats.inference import merging, supervoxels
from fedbrats.metrics.achievable import achievable_accuracy
from fedbrats.runs.table import Table

COLUMNS = ("case", "status", "supervoxels", "merged", "seconds", "achievable", "achievable_merged")
TABLE = Table("supervoxels.csv", COLUMNS, text=("case", "status"), needed=("case", "status"))
MOST = 65535  # numbers of a label file of 16 bits


@dataclass
class SupervoxelConfig:
    """One call of the command."""

    data: str = MISSING  # folder of cases
    output: str = "supervoxels"
    merge: bool = True  # false: the oversegmentation as it is
    cell: list[int] = field(default_factory=lambda: list(supervoxels.CELL))  # voxels between seeds
    compactness: float = supervoxels.COMPACTNESS
    epsilon: float = supervoxels.EPSILON
    alpha: float = merging.ALPHA
    beta: float = merging.BETA
    gamma: float = merging.GAMMA
    links: str = "inside"
    max_voxels: int = DataConfig.max_voxels


def main(arguments: list[str]) -> int:
    """Cut the cases of one folder and return the exit status."""
    return exit_status(__doc__, arguments, lambda words, say: cut_cases(read_arguments(words), say))


def read_arguments(arguments: Sequence[str]) -> SupervoxelConfig:
    """Read `key=value` arguments.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or out of range, or no data; the key is named.
    """
    config, _ = read_words(SupervoxelConfig, arguments)
    if config is None:
        raise ConfigError("missing: data=<folder of cases>")
    if len(config.cell) != 3 or min(config.cell) < 1:
        raise ConfigError(f"cell={config.cell}: three sides of 1 voxel or more.")
    for key in ("compactness", "epsilon", "alpha", "gamma"):
        if not getattr(config, key) > 0:
            raise ConfigError(f"{key}={getattr(config, key)}: must be a positive number.")
    if not config.beta >= 0:
        raise ConfigError(f"beta={config.beta}: must be a number of at least 0.")
    if config.links not in ("inside", "follow") or config.max_voxels < 1:
        raise ConfigError(
            f"links={config.links}, max_voxels={config.max_voxels}: choose inside or follow, and at least 1 voxel."
        )
    return config


def cut_cases(config: SupervoxelConfig, say: Say) -> list[dict[str, Any]]:
    """Cut every case below `config.data`; rows of `supervoxels.csv`.

    Raises:
        ConfigError: no such folder, or no case in it.
    """
    root, output = path(config.data), path(config.output)
    try:
        cases = find_cases(root, say, unlabelled=True, links=config.links)
    except ValueError as error:
        raise ConfigError(str(error).replace("data.root", "data")) from error
    bounds = bounds_of(root, config.max_voxels, config.links, "")
    output.mkdir(parents=True, exist_ok=True)
    rows = list[dict[str, Any]]()
    for number, case in enumerate(cases, start=1):
        try:
            rows.append({"case": case.name, "status": "ok", **_cut(case, config, output, bounds)})
        except ValueError as error:
            rows.append({"case": case.name, "status": f"failed: {error}"})
        TABLE.write(output, rows)
        say(f"{number}/{len(cases)} {_in_words(rows[-1])}")
    return rows


def _cut(case: Case, config: SupervoxelConfig, output: Path, bounds: Bounds) -> dict[str, Any]:
    volumes, source, truth = read_volumes(case, bounds)
    started = time.perf_counter()
    mask = np.any(volumes != 0, axis=0)
    if not mask.any():
        raise ValueError(f"{case.name}: every voxel is 0, expected a brain")
    box = tuple(slice(int(a.min()), int(a.max()) + 1) for a in np.nonzero(mask))
    inside, image = mask[box], supervoxels.unit_range(volumes[(slice(None), *box)], mask[box])
    cut = supervoxels.oversegment(image, inside, config.cell, config.compactness, config.epsilon)
    merged = merging.merge(image, cut, config.alpha, config.beta, config.gamma) if config.merge else cut
    seconds = time.perf_counter() - started
    if merged.max() > MOST:
        raise ValueError(f"{case.name}: {merged.max()} supervoxels, more than a file can number; raise cell")
    whole = np.zeros(mask.shape, np.uint16)
    whole[box] = merged
    write_labels(output / f"{case.name}_supervoxels.nii.gz", whole, source)
    row: dict[str, Any] = {
        "supervoxels": int(cut.max()),
        "merged": int(merged.max()),
        "seconds": round(seconds, 2),
    }
    if truth is not None:
        row |= {"achievable": achievable_accuracy(cut, truth[box])}
        row |= {"achievable_merged": achievable_accuracy(merged, truth[box])}
    return row


def _in_words(row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['case']}: {row['status']}"
    said = f"{row['case']}: {row['supervoxels']} supervoxels, {row['merged']} after merging, {row['seconds']:.1f} s"
    if row.get("achievable") is None:
        return said
    return (
        f"{said}, of the tumour {row['achievable']:.3f} and {row['achievable_merged']:.3f} could be segmented"
    )

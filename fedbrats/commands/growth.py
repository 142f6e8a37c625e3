"""Score predictions of growth as rankings: does the tumour come first where they say it does?

    fedbrats growth times=<folder> later=<folder> [before=<folder>] [removed=<folder>] [brain=<folder>] [output=growth]

Each folder has a NIfTI file <case>.nii.gz (or .nii) for every case, all of a case on one grid: `times`, when the tumour
reaches a voxel, in any unit, infinite or negative for never; `later`, the tumour seen later, every voxel that is not 0;
`before`, the one seen when the prediction began; `removed`, what was resected, and `brain`: what lies outside is not
looked at.

Into the output folder goes growth.csv: the average precision over the whole later tumour (`ap`), over what is new in it
(`ap_new`, with `before`), the Dice at its volume, and as a floor the average precision of nothing but the distance to
`before` (`ap_distance`); and <case>_agreement.nii.gz, in hundredths.

max_voxels=134217728 (of one file). The exit status is 0, 1 if a case failed, 2 if the command cannot be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from scipy import ndimage

from fedbrats.commands.per_case import Say, exit_status, read_words
from fedbrats.commands.words import path
from fedbrats.config.schema import DataConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.nifti import SUFFIXES, Source, canonical_affine, read_volume, spacing_of, write_labels
from fedbrats.data.stream import Bounds
from fedbrats.metrics.growth import agreement, ranking
from fedbrats.runs.table import Table

COLUMNS = ("case", "status", "tumour", "new", "ap", "ap_new", "ap_distance", "overlap_at_volume")
TABLE = Table("growth.csv", COLUMNS, text=("case", "status"), needed=("case", "status"))
SAME_PLACE = 1e-3  # mm and voxels: two affines that differ by less are of one grid


@dataclass
class GrowthConfig:
    """One call of the command; every value but the last two is a folder."""

    times: str = MISSING
    later: str = MISSING
    before: str | None = None
    removed: str | None = None
    brain: str | None = None
    output: str = "growth"
    max_voxels: int = DataConfig.max_voxels


def main(arguments: list[str]) -> int:
    """Score the cases of the folders and return the exit status."""
    return exit_status(__doc__, arguments, lambda words, say: score_growth(read_arguments(words), say))


def read_arguments(arguments: Sequence[str]) -> GrowthConfig:
    """Read `key=value` arguments.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or out of range, or a folder that is needed; named.
    """
    config, missing = read_words(GrowthConfig, arguments)
    if config is None:
        raise ConfigError(f"missing: {', '.join(f'{key}=<folder>' for key in missing)}")
    if config.max_voxels < 1:
        raise ConfigError(f"max_voxels={config.max_voxels}: at least 1 voxel.")
    return config


def score_growth(config: GrowthConfig, say: Say) -> list[dict[str, Any]]:
    """Score every case of `config.times`; rows of `growth.csv`.

    Raises:
        ConfigError: a folder that is not there, or no volume in `times`.
    """
    keys = [
        key for key in ("times", "later", "before", "removed", "brain") if getattr(config, key) is not None
    ]
    folders = {key: path(getattr(config, key)) for key in keys}
    for key, folder in folders.items():
        if not folder.is_dir():
            raise ConfigError(f"{key}={folder}: no such folder.")
    names = sorted(filter(None, (_name(file) for file in folders["times"].iterdir())))
    if not names:
        raise ConfigError(f"times={folders['times']}: no file <case>.nii.gz or <case>.nii in it.")
    output = path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    rows = list[dict[str, Any]]()
    for number, name in enumerate(names, start=1):
        try:
            rows.append({"case": name, "status": "ok", **_scored(name, folders, output, config.max_voxels)})
        except ValueError as error:
            rows.append({"case": name, "status": f"failed: {error}"})
        TABLE.write(output, rows)
        said = f"ap {rows[-1]['ap']:.3f}" if "ap" in rows[-1] else rows[-1]["status"]
        say(f"{number}/{len(names)} {name}: {said}")
    return rows


def _name(file: Path) -> str:
    """The case that a file is of; empty for a file that is no volume."""
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if file.name.endswith(s)), "")
    return file.name.removesuffix(suffix) if suffix else ""


def _scored(name: str, folders: dict[str, Path], output: Path, most: int) -> dict[str, Any]:
    volumes, source = _read(name, folders, most)
    times = volumes["times"].astype(np.float64)
    times[times < 0] = np.inf
    tumour = volumes["later"] != 0
    region = volumes["brain"] != 0 if "brain" in volumes else np.ones(times.shape, bool)
    if "removed" in volumes:
        region &= volumes["removed"] == 0
    found = ranking(times, tumour, region)
    row: dict[str, Any] = {"tumour": found.tumour, "ap": found.average_precision}
    if "before" in volumes:
        earlier = volumes["before"] != 0
        if not earlier.any():
            raise ValueError(f"{name}: the tumour of `before` is empty, expected where the prediction began")
        fresh = region & ~earlier
        found, region = ranking(times, tumour, fresh), fresh
        distance = ndimage.distance_transform_edt(~earlier, sampling=spacing_of(source))
        row |= {"new": found.tumour, "ap_new": found.average_precision}
        row |= {"ap_distance": ranking(distance, tumour, fresh).average_precision}
    hundredths = np.rint(100 * agreement(found, times, tumour, region)).astype(np.uint8)
    write_labels(output / f"{name}_agreement.nii.gz", hundredths, source)
    return row | {"overlap_at_volume": found.overlap_at_volume}


def _read(name: str, folders: dict[str, Path], most: int) -> tuple[dict[str, np.ndarray], Source]:
    """The volumes of a case by their folders' keys, on one grid, and the space of `times`."""
    volumes, first = dict[str, np.ndarray](), None
    for key, folder in folders.items():
        files = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()]
        if len(files) != 1:
            raise ValueError(f"{name}: {len(files)} files of it in {key}={folder}, expected one")
        volumes[key], source = read_volume(files[0], bounds=Bounds(most, folder, ""))
        first = first or source
        moved = np.abs(canonical_affine(source) - canonical_affine(first)).max()
        if volumes[key].shape != volumes["times"].shape or moved > SAME_PLACE:
            raise ValueError(f"{files[0]}: another grid than that of times")
    assert first is not None
    return volumes, first

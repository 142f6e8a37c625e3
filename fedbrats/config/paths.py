"""The settings that name a place on the disk, made absolute once, so that no later folder changes what they mean."""

from __future__ import annotations

import os
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from fedbrats.config.schema import Config

# Dotted keys; a run that serves as a start or a localiser may have @ARM@WHICH behind its folder.
PATHS = (
    *("data.root", "data.cache", "partition.table", "partition.test_table", "privacy.ledger", "run.resume"),
    "run.baselines",
    "scenario.clock.table",
    "task.labels",
    *("train.init", "inference.locate"),
)


def absolute(path: str | Path, base: Path | None = None) -> Path:
    """`path` with `~` expanded, from `base` (the working directory) where it is relative; links stay what they are."""
    return Path(os.path.abspath((base or Path.cwd()) / Path(path).expanduser()))


def with_absolute_paths(config: Config, base: Path | None = None) -> Config:
    """The same configuration with every one of `PATHS` absolute.

    Args:
        config: as it was asked for.
        base: folder that relative ones start from: where the command was called, whatever has changed directory since.
    """
    for key in PATHS:
        config = _with(config, key.split("."), base)
    return config


def _with(part: Any, names: list[str], base: Path | None) -> Any:
    name, *below = names
    value = part.get(name) if isinstance(part, dict) else getattr(part, name)
    if value is None or value == "":
        return part
    new = _with(value, below, base) if below else str(absolute(str(value), base))
    return (
        replace(part, **{name: new})
        if is_dataclass(part) and not isinstance(part, type)
        else {**part, name: new}
    )

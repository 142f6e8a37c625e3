"""Which predictions are to be scored: a file, a folder of any tool, or the arms of a run folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedbrats.commands.evaluate.label_files import case_name
from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.data.walking import written_here

PREDICTIONS = "predictions"  # below a run folder, one folder per arm


@dataclass(frozen=True)
class Batch:
    """Predictions of one arm. asked: the cases that have to be there, None if the references say which."""

    arm: str
    path: Path
    asked: frozenset[str] | None = None


def batches_of(path: Path) -> list[Batch]:
    """The predictions at `path`: of a run folder (or its `predictions`, or one arm of these) those of each arm.

    What a run predicted are its test cases, so they and not all references are what was asked of it.

    Raises:
        ConfigError: a run folder that holds no predictions.
    """
    for run, below in ((path, path / PREDICTIONS), (path.parent, path), (path.parent.parent, path.parent)):
        if below.name == PREDICTIONS and run.is_dir() and written_here(os.listdir(run)) == "run":
            return _of_run(run, below, path)
    name = case_name(path) if path.is_file() else path.resolve().name or PREDICTIONS
    return [Batch(shown(name), path)]


def _of_run(run: Path, below: Path, path: Path) -> list[Batch]:
    folders = sorted(folder for folder in below.iterdir() if folder.is_dir()) if below.is_dir() else []
    if path.parent == below:
        folders = [folder for folder in folders if folder == path]
    if not folders:
        raise ConfigError(
            f"{path}: a run folder without predictions; run with report.predictions=true, or use fedbrats predict"
        )
    tested = _tested(run)
    arms = {arm.replace(":", "-"): arm for arm in tested}
    return [Batch(shown(arms.get(f.name, f.name)), f, tested.get(arms.get(f.name, ""))) for f in folders]


def _tested(run: Path) -> dict[str, frozenset[str]]:
    """The test cases of each arm by `cases.csv`; nothing of a run that did not get so far or keeps them at home."""
    try:
        table = pd.read_csv(run / "cases.csv", dtype=str, usecols=["arm", "case"])
    except (OSError, ValueError):
        return {}
    return {str(arm): frozenset(group["case"].dropna()) for arm, group in table.groupby("arm")}

"""The files that a private run leaves in its folder, and those that a site keeps of its steps."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fedbrats.files import write_csv
from fedbrats.runs.site_cases import site_folder

ROUND_COLUMNS = ("round", "site", "epsilon", "sigma", "sample_rate", "steps", "status")  # privacy_rounds.csv
STEP_COLUMNS = ("site", "round", "step", "drawn", "clipped", "norm_median", "norm_max", "loss", "clip")
CENTRAL_COLUMNS = (  # central_rounds.csv
    *("round", "replies", "clipped", "update_norm_median", "mean_update_norm", "noise_norm"),
    *("epsilon", "status"),
)


def steps_file(storage: Path, round_: int) -> Path:
    """Where a site keeps what the private steps of a round did; `storage` is that of its privacy."""
    return storage / "steps" / f"round_{round_:05d}.csv"


def collect_steps(folder: Path, sites: Sequence[str]) -> None:
    """In a simulation, where all storages lie below the run: join the sites' own step files in `privacy_steps.csv`."""
    rows: list[dict[str, str]] = []
    for site in sites:
        for file in sorted((site_folder(folder, site) / "privacy" / "steps").glob("round_*.csv")):
            with file.open(newline="") as handle:
                rows += list(csv.DictReader(handle))
    write_csv(folder / "privacy_steps.csv", STEP_COLUMNS, rows)

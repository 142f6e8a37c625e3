"""The tables that a private run leaves in its folder, and those that a site keeps of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedbrats.runs.site_cases import site_folder
from fedbrats.runs.table import Table

ROUNDS = Table(
    "privacy_rounds.csv",
    ("round", "site", "epsilon", "sigma", "sample_rate", "steps", "status"),
    text=("site", "status"),
    needed=("round", "site", "epsilon"),
)
STEPS = Table(
    "privacy_steps.csv",
    ("site", "round", "step", "drawn", "clipped", "norm_median", "norm_max", "loss", "clip"),
    text=("site",),
    needed=("site", "round", "step"),
)
CENTRAL_ROUNDS = Table(
    "central_rounds.csv",
    (
        *("round", "replies", "clipped", "update_norm_median", "mean_update_norm", "noise_norm"),
        *("epsilon", "status"),
    ),
    text=("status",),
    needed=("round", "epsilon"),
)


def write_site_steps(storage: Path, round_: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Let a site keep what the private steps of a round did; `storage` is that of its privacy."""
    replace(STEPS, name=f"round_{round_:05d}.csv").write(storage / "steps", rows, private=True)


def rounds_with_steps(storage: Path) -> list[int]:
    """The rounds whose private steps a site has taken, by the files that it kept of them."""
    return sorted(int(file.stem.removeprefix("round_")) for file in (storage / "steps").glob("round_*.csv"))


def collect_steps(folder: Path, sites: Sequence[str]) -> None:
    """In a simulation, where all storages lie below the run: join the sites' own step files in `privacy_steps.csv`."""
    rows: list[dict[str, str]] = []
    for site in sites:
        steps = site_folder(folder, site) / "privacy" / "steps"
        for file in sorted(steps.glob("round_*.csv")):
            rows += replace(STEPS, name=file.name).rows(steps)
    STEPS.write(folder, rows, private=True)

"""What `sims/check_data.py` prints: the cases of each institution and every problem of the files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.table import Table

from fedbrats.config import Config, ConfigError, register, typed
from fedbrats.data.cases import Case, find_cases
from fedbrats.data.checks import DataCheck, check_cases
from fedbrats.data.inspection import CaseCheck, Problem
from fedbrats.data.institutions import CONTROLS, assign, find_institutions

NO_INSTITUTION = "(no institution)"


@dataclass(frozen=True)
class Listing:
    """Everything found under `data.root`: cases, their institutions, and their problems."""

    cases: list[Case]
    institutions: dict[str, str]
    check: DataCheck
    partition_problem: str  # why `partition` cannot be made of these cases, "" if it can

    @property
    def problems(self) -> list[Problem]:
        """Problems of cases, then of the data set, then of the partition."""
        own = [Problem("", "", self.partition_problem, "error")] if self.partition_problem else []
        return sorted(self.check.problems, key=lambda problem: not problem.case) + own


def read_overrides(conf: Path, overrides: Sequence[str]) -> Config:
    """Return the configuration for the same `key=value` overrides that a run takes.

    Raises:
        ConfigError: an unknown key or group, or a value of a wrong type, named in the message.
    """
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return typed(compose("config", overrides=list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(": ".join(map(str, filter(None, [error, error.__cause__])))) from error


def list_folder(config: Config, progress: Callable[[CaseCheck], Any] | None = None) -> Listing:
    """Find and check every case under `data.root`.

    Raises:
        ValueError: no folder, no case in it, or partition options that cannot work.
    """
    if not config.data.root:
        raise ConfigError("data.root: name the folder that holds the cases")
    cases = find_cases(config.data.root)
    found = find_institutions(cases, config.partition)
    problem = ""
    if config.partition.method not in CONTROLS:
        try:
            found.update(assign(cases, config.partition))
        except ConfigError as error:
            problem = str(error)
    institutions = {name: site or NO_INSTITUTION for name, site in found.items()}
    workers = config.runtime.workers
    if workers is None:  # a process takes about as long to start as four cases to read
        workers = min(os.cpu_count() or 1, len(cases) // 4)
    check = check_cases(cases, workers, config.data.et_label, progress)
    return Listing(cases, institutions, check, problem)


def institution_table(listing: Listing) -> Table:
    """Return one row per institution: cases, cases with errors and with warnings, numbers in the labels."""
    told = set(listing.institutions.values()) - {NO_INSTITUTION}
    table = Table(title=f"{len(listing.cases)} cases, {len(told)} institutions")
    table.add_column("institution", no_wrap=True)
    for header in ("cases", "bad", "warned"):
        table.add_column(header, justify="right")
    table.add_column("labels")
    table.add_column("naming", no_wrap=True)
    members: dict[str, list[Case]] = defaultdict(list)
    for case in listing.cases:
        members[listing.institutions[case.name]].append(case)
    for site, cases in sorted(members.items()):
        names = {case.name for case in cases}
        affected = {
            severity: {p.case for p in listing.problems if p.severity == severity} & names
            for severity in ("error", "warning")
        }
        numbers = set().union(*(listing.check.numbers.get(name, set()) for name in names))
        table.add_row(
            site,
            str(len(cases)),
            str(len(affected["error"])),
            str(len(affected["warning"])),
            " ".join(map(str, sorted(numbers))),
            ", ".join(sorted({case.family for case in cases})),
        )
    return table

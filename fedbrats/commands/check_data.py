"""List what is found under a folder, per institution, and every problem of its files.

    fedbrats check-data data.root=/path/to/BraTS2021 [partition.table=table.csv] [data.labels=gli2023] [...]

Takes the same overrides as `fedbrats run`, and --config-dir. The exit status is 0 without errors (there may be
warnings), 1 with errors, 2 when the command itself cannot be used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedbrats.checks.plan import check_plan
from fedbrats.commands.compose import compose_config, own_folder
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.case_labels import task_labels
from fedbrats.data.cases import Case
from fedbrats.data.checks import DataCheck, check_cases
from fedbrats.data.finding import find_cases
from fedbrats.data.inspection import CaseCheck, Problem
from fedbrats.data.institutions import CONTROLS, assign, find_institutions
from fedbrats.data.walking import bounds_of
from fedbrats.devices import cores
from fedbrats.report.terminal import plain

NO_INSTITUTION = "(no institution)"


@dataclass(frozen=True)
class Listing:
    """Everything found under `data.root`: cases, their institutions, and their problems."""

    cases: list[Case]
    institutions: dict[str, str]
    check: DataCheck
    plan_problem: str  # why no run can be made of these cases, "" if it can
    notes: list[str] = field(
        default_factory=list
    )  # what was passed over or decided, and what names tell of patients

    @property
    def problems(self) -> list[Problem]:
        """Problems of cases, then of the data set, then of the plan."""
        own = [Problem("", "", self.plan_problem, "error")] if self.plan_problem else []
        return sorted(self.check.problems, key=lambda problem: not problem.case) + own


def main(arguments: list[str]) -> int:
    """Check one folder and return the exit status."""
    console = Console(highlight=False)
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(__doc__, markup=False, soft_wrap=True)
        return 0 if arguments else 2
    try:
        own, overrides = own_folder(arguments)
        config = compose_config(overrides, own)
        with console.status("reading") as status:
            listing = list_folder(config, lambda result: status.update(plain(f"read {result.case}")))
    except ValueError as error:
        console.print(plain(f"error: {error}"), soft_wrap=True)
        return 2
    console.print(institution_table(listing))
    if listing.check.families:
        console.print(plain(f"label numbers: {listing.check.families.sentence}"), soft_wrap=True)
    for note in listing.notes:
        console.print(plain(note), soft_wrap=True)
    for problem in listing.problems:
        console.print(plain(problem), soft_wrap=True)
    errors = sum(problem.severity == "error" for problem in listing.problems)
    console.print(f"Errors: {errors}, warnings: {len(listing.problems) - errors}.")
    return 1 if errors else 0


def list_folder(config: Config, progress: Callable[[CaseCheck], Any] | None = None) -> Listing:
    """Find and check every case under `data.root`; what a run refuses before it reads a volume is a problem here.

    Raises:
        ValueError: no folder, no case in it, or partition options that cannot work.
    """
    if not config.data.root:
        raise ConfigError("data.root: name the folder that holds the cases")
    root = Path(config.data.root).expanduser()
    notes: list[str] = []
    cases = find_cases(root, notes.append, links=config.data.links, labels=config.data.labels)
    found = find_institutions(cases, config.partition)
    problem = ""
    try:
        if config.partition.method not in CONTROLS:
            found.update(assign(cases, config.partition))
        check_plan(config, notes.append, cases, task_labels(config.task, root, cases))
    except ConfigError as error:
        problem = str(error)
    institutions = {name: site or NO_INSTITUTION for name, site in found.items()}
    workers = config.runtime.workers
    if workers is None:
        workers = cores()
    bounds = bounds_of(root, config.data.max_voxels, config.data.links)
    check = check_cases(cases, workers, config.data.labels, progress, bounds=bounds)
    return Listing(cases, institutions, check, problem, notes)


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
            plain(site),
            str(len(cases)),
            str(len(affected["error"])),
            str(len(affected["warning"])),
            " ".join(map(str, sorted(numbers))),
            ", ".join(sorted({case.family for case in cases})),
        )
    return table

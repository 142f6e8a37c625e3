"""From a folder of cases to sites with preprocessed cases: find, check, preprocess, partition."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.config.schema import DataConfig, PartitionConfig
from fedbrats.config.task import TaskConfig
from fedbrats.data.brain import LEAST_BACKGROUND, is_stripped
from fedbrats.data.cache import CachedCase, prepare_cases
from fedbrats.data.case_labels import OF_RUN, Keys, check_classes, task_labels
from fedbrats.data.cases import Case
from fedbrats.data.checks import DataCheck, Problem, check_cases
from fedbrats.data.entries import STALE_SECONDS
from fedbrats.data.families import Families
from fedbrats.data.finding import find_cases
from fedbrats.data.institutions import CONTROLS, assign, patients_of
from fedbrats.data.partition import Site, make_partition
from fedbrats.data.partition_table import partition_table
from fedbrats.data.patients import Patients
from fedbrats.data.phantom import GENERATOR, write_phantom
from fedbrats.data.sentences import plural, some
from fedbrats.data.walking import bounds_of
from fedbrats.files import remove_partial

SHOWN = 20  # problems named in an error message
Say = Callable[[str], object]


class DataError(ValueError):
    """Cases that cannot be used while `data.on_bad_case=fail`; the message lists them."""


@dataclass(frozen=True)
class Prepared:
    """A data set ready for training."""

    sites: list[Site]
    cached: dict[str, CachedCase]
    label_system: dict[str, Any] | None  # None if cases differ in it
    label_sentence: str
    lesion_sentence: str
    skipped: list[dict[str, str]] = field(default_factory=list)  # case, file, what
    warnings: list[dict[str, str]] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    patients: Patients = field(default_factory=lambda: Patients({}))
    labels: dict[str, int] = field(default_factory=dict)  # of whole cases; none for a segmentation

    def to_json(self) -> dict[str, Any]:
        """The content of `partition.json`."""
        return {
            "sites": json.loads(json.dumps([asdict(site) for site in self.sites])),
            "label_system": self.label_system,
            "et_recognised": self.label_sentence,
            "lesion_constants": self.lesion_sentence,
            "skipped": self.skipped,
            "warnings": self.warnings,
            "patients": [asdict(understood) for understood in self.patients.counts()],
            "table": json.loads(self.table.to_json(orient="records")),
        }


def data_root(data: DataConfig, workers: int, say: Say) -> Path:
    """The folder of the cases; for `data.source=phantom` it is generated when it is not there yet."""
    if data.source == "folder":
        return Path(str(data.root)).expanduser()
    settings = {key: value for key, value in asdict(data.phantom).items() if value is not None}
    identity = json.dumps([GENERATOR, settings], sort_keys=True)  # another generator, another folder
    name = hashlib.sha256(identity.encode()).hexdigest()[:12]
    root = Path(data.root or Path(data.cache).expanduser() / "phantom" / name)
    if not root.exists():
        say(f"generating the phantom in {root}")
    write_phantom(root, **settings, workers=workers)
    return root


def prepare(
    data: DataConfig,
    partition: PartitionConfig,
    workers: int,
    say: Say,
    allow: Callable[[Sequence[Case], Mapping[str, int]], None] = lambda cases, labels: None,
    task: TaskConfig | None = None,
    keys: Keys = OF_RUN,
) -> Prepared:
    """Find, check and preprocess all cases and deal them to the sites.

    Args:
        data: where they are.
        partition: how they are dealt.
        workers: threads for reading, processes for writing a phantom.
        say: told what is going on.
        allow: given the cases and their labels before any volume is read; raises what it finds wrong with their names.
        task: of the run; None is a segmentation.
        keys: that messages about its labels name.

    Raises:
        ConfigError: a table of labels that does not fit.
        DataError: cases with errors while `data.on_bad_case=fail`, or no usable case left.
        ValueError: no cases, ambiguous labels, cases without institution.
    """
    root = data_root(data, workers, say)
    cache = Path(data.cache).expanduser()
    remove_partial(cache, STALE_SECONDS)
    cases = find_cases(root, say, links=data.links, labels=data.labels)
    bounds = bounds_of(root, data.max_voxels, data.links)
    task = task or TaskConfig()
    labels = task_labels(task, root, cases, keys)
    allow(cases, labels)
    say(f"checking {len(cases)} cases in {root}")
    checked = check_cases(cases, workers, data.labels, memory=cache / "checks", bounds=bounds)
    families = _families(checked)
    say(f"label numbers: {families.sentence}")
    errors = list(checked.errors)
    _require(not errors or data.on_bad_case == "skip", errors)
    warnings = [problem for problem in checked.problems if problem.severity == "warning"]
    _say_each(warnings, say)
    usable = [case for case in cases if case.name not in checked.bad_cases]
    say(f"preprocessing {len(usable)} cases into {cache}")
    systems = {case.name: families.by_case[case.name].labels for case in usable}
    results = prepare_cases(usable, systems, cache, workers, bounds=bounds)
    cached = {name: entry for name, entry in results.items() if isinstance(entry, CachedCase)}
    failed = {name: entry for name, entry in results.items() if isinstance(entry, Exception)}
    errors += [Problem(name, "", str(error), "error") for name, error in failed.items()]
    _require(bool(cached) and (not failed or data.on_bad_case == "skip"), errors)
    usable = [case for case in usable if case.name in cached]
    stats = {name: entry.meta for name, entry in cached.items()}
    _say_unstripped(stats, say)
    volumes = {name: meta["volumes_ml"]["WT"] for name, meta in stats.items()}
    sites = make_partition(usable, partition, volumes, labels)
    check_classes(task, sites, labels, keys)
    _say_left_out(cases, usable, errors, partition, sites, say)
    return Prepared(
        sites=sites,
        cached=cached,
        label_system=systems[usable[0].name].to_json() if len(set(systems.values())) == 1 else None,
        label_sentence=families.sentence,
        lesion_sentence=families.lesions,
        skipped=[{"case": p.case, "file": p.file, "what": p.what} for p in errors],
        warnings=[{"case": p.case, "file": p.file, "what": p.what} for p in warnings],
        table=partition_table(sites, stats),
        patients=patients_of(usable, partition),
        labels=labels,
    )


def _families(checked: DataCheck) -> Families:
    """The families of the cases. Raises DataError where no case could be read or their labels leave a doubt."""
    general = [problem for problem in checked.errors if not problem.case]
    if general or checked.families is None:
        raise DataError("; ".join(problem.what for problem in general))
    return checked.families


def _require(ok: bool, errors: Sequence[Problem]) -> None:
    if not ok:
        raise DataError(_listing(errors))


def _say_unstripped(stats: Mapping[str, Any], say: Say) -> None:
    """Say whose predictions nothing keeps inside the brain."""
    if unstripped := [name for name, meta in stats.items() if not is_stripped(meta["background"])]:
        say(
            f"{len(unstripped)} of {len(stats)} images are not skull-stripped (less than {LEAST_BACKGROUND:.0%} of the "
            f"volume is exactly 0), so nothing keeps their predictions inside the brain: {some(unstripped)}"
        )


def _say_each(problems: Sequence[Problem], say: Say) -> None:
    for problem in problems[:SHOWN]:
        say(str(problem))
    if len(problems) > SHOWN:
        say(f"and {len(problems) - SHOWN} more of these, all of them in partition.json")


def _say_left_out(
    cases: Sequence[Case],
    usable: Sequence[Case],
    errors: Sequence[Problem],
    partition: PartitionConfig,
    sites: Sequence[Site],
    say: Say,
) -> None:
    """Say what `data.on_bad_case=skip` has left out, and which institutions with it or for `partition.least`."""
    if errors:
        left_out = {problem.case for problem in errors}
        say(f"left out by data.on_bad_case=skip: {len(left_out)} of {len(cases)} cases")
        _say_each(errors, say)
    if partition.method in CONTROLS:
        return
    before, after = (Counter(assign(of, partition).values()) for of in (cases, usable))
    for name in sorted(before.keys() - after.keys()):
        say(f"{name} is no longer in this federation: none of its {before[name]} cases can be used")
    if small := sorted(after.keys() - {site.name for site in sites}):
        left = plural(sum(after[name] for name in small), "case")
        say(f"partition.least={partition.least}: without {some(small)}, of {left} together")


def _listing(problems: Sequence[Problem]) -> str:
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    names = len({p.case for p in problems})
    head = f"{names} cases cannot be used; mend them, or leave them out with data.on_bad_case=skip:\n"
    return head + "\n".join(lines) + more

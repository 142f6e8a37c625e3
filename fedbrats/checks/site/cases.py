"""What a site's own cases are, before any study asks: which can be used, and what the site makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding, reason_of
from fedbrats.config.schema import PartitionConfig
from fedbrats.config.site_file import SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.checks import DataCheck, check_cases
from fedbrats.data.finding import find_cases
from fedbrats.data.inspection import CaseCheck
from fedbrats.data.institutions import OWN, patients_of
from fedbrats.data.partition import Site, make_partition
from fedbrats.data.patients import Patients, check_known
from fedbrats.data.sentences import plural
from fedbrats.data.walking import bounds_of
from fedbrats.devices import cores

SHOWN = 20  # problems on the screen
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Cases:
    """What was found, and the cases that can be used with what their label numbers mean."""

    findings: list[Finding]
    usable: list[Case] = field(default_factory=list)
    check: DataCheck | None = None


def look_at_cases(
    site: SiteFile,
    study: PartitionConfig,
    private: bool = False,
    progress: Callable[[CaseCheck], Any] | None = None,
    workers: int | None = None,
) -> Cases:
    """Find and read every case of `site`, and split them as a study would.

    Args:
        site: as its file says.
        study: what holds where the site says nothing of its own.
        private: whether the study protects patients, so that the patient of each scan has to be known.
        progress: called after each case.
        workers: processes that read; None: as many as there are cores and work for.
    """
    if not site.data.root:
        return Cases(
            [Finding("data", FIX, "site.yaml names none: set data.root to the folder of the cases.")]
        )
    root = Path(site.data.root)
    notes: list[str] = []
    try:
        cases = find_cases(root, notes.append, links=site.data.links, labels=site.data.labels)
    except OSError as error:
        said = (
            f"its folder cannot be read: {reason_of(error)}. Mount it, or let the user of fedbrats read it."
        )
        return Cases([Finding("data", FIX, said, str(root))])
    except ValueError as error:
        said = "no case was found: set data.root to the folder with one folder per case (fedbrats/data/README.md)."
        return Cases([Finding("data", FIX, said, str(error))])
    if workers is None:  # a process takes longer to start than a few cases to read
        workers = min(cores(), len(cases) // 8)
    bounds = bounds_of(root, site.data.max_voxels, site.data.links)
    check = check_cases(cases, workers, site.data.labels, progress, _memory(site), bounds)
    bad = {case.name for case in cases} & check.bad_cases
    usable = [case for case in cases if case.name not in bad]
    findings = [_data(site, cases, check, bad, notes), _orientation(check), _labels(site, check)]
    if usable:
        findings += _patients_and_splits(site, usable, study, private)
    return Cases(findings, usable if check.families else [], check)


def _memory(site: SiteFile) -> Path | None:
    """Where findings are remembered: in the cache, where that lies in the storage; nothing is written elsewhere."""
    cache = Path(site.data.cache)
    return cache / "checks" if cache.is_relative_to(site.storage) else None


def _data(
    site: SiteFile, cases: Sequence[Case], check: DataCheck, bad: set[str], notes: Sequence[str]
) -> Finding:
    warned = {problem.case for problem in check.problems if problem.severity == "warning"}
    facts = {"cases": len(cases), "unusable": len(bad), "with warnings": len(warned)}
    problems = [str(problem) for problem in check.problems if problem.case]
    here = "\n".join(
        [*notes, *problems[:SHOWN], *([f"and {len(problems) - SHOWN} more"] if problems[SHOWN:] else [])]
    )
    found = f"{plural(len(cases), 'case')} found"
    if len(bad) == len(cases):
        return Finding(
            "data", FIX, f"{found}, none can be used: each is named on the site's screen.", here, facts
        )
    if bad and site.data.on_bad_case != "skip":
        said = f"{found}, {len(bad)} cannot be used: mend or remove them, or leave them out with data.on_bad_case=skip."
        return Finding("data", FIX, said, here, facts)
    if bad:
        return Finding(
            "data", WARNING, f"{found}, {len(bad)} cannot be used and will be left out.", here, facts
        )
    if warned:
        return Finding(
            "data",
            WARNING,
            f"{found}, {plural(len(warned), 'one', 'ones')} with a warning: look at it.",
            here,
            facts,
        )
    return Finding("data", OK, found, here, facts)


def _orientation(check: DataCheck) -> Finding:
    """Whether the files say how the patient lies, without which left and right could be exchanged."""
    about = [
        p for p in check.problems if p.case and any(word in p.what for word in ("affine", "sform", "qform"))
    ]
    errors = {problem.case for problem in about if problem.severity == "error"}
    warned = {problem.case for problem in about} - errors
    facts = {"errors": len(errors), "warnings": len(warned)}
    here = "\n".join(str(problem) for problem in about[:SHOWN])
    if errors:
        said = f"{plural(len(errors), 'case')} with files that lie apart in space: convert them anew, or register them."
        return Finding("orientation", FIX, said, here, facts)
    if warned:
        said = f"{plural(len(warned), 'case')} with files that do not say for sure how the patient lies: look at them."
        return Finding("orientation", WARNING, said, here, facts)
    return Finding("orientation", OK, "every file says how the patient lies", "", facts)


def _labels(site: SiteFile, check: DataCheck) -> Finding:
    if check.families is None:
        here = "\n".join(problem.what for problem in check.errors if not problem.case)
        said = "what the numbers of the segmentations mean is in doubt: set data.labels (fedbrats/data/README.md)."
        return Finding("labels", FIX, said, here)
    numbers = sorted(set().union(*check.numbers.values())) if check.numbers else []
    facts = {"numbers": " ".join(map(str, numbers))}
    if check.families.odd:
        said = f"{plural(len(check.families.odd), 'case')} with numbers that do not fit the others: see data."
        verdict = WARNING if site.data.on_bad_case == "skip" else FIX
        return Finding("labels", verdict, said, check.families.sentence, facts)
    return Finding("labels", OK, f"numbers {facts['numbers']} are understood", check.families.sentence, facts)


def _patients_and_splits(
    site: SiteFile, usable: Sequence[Case], study: PartitionConfig, private: bool
) -> list[Finding]:
    partition = own_partition(site, study)
    try:
        patients = patients_of(usable, partition)
        check_known(patients, partition, private)
        dealt = make_partition(usable, partition)[0]
    except (ConfigError, OSError) as error:
        said = "whose scans the cases are cannot be told: see partition.* in site.yaml (fedbrats/data/README.md)."
        return [Finding("patients", FIX, said, str(error))]
    return [_patients(patients), _splits(site, dealt)]


def own_partition(site: SiteFile, study: PartitionConfig) -> PartitionConfig:
    """How the site splits its cases: all are its own, and what it says itself goes before what `study` says."""
    own = {key: value for key, value in asdict(site.partition).items() if key != "role" and value is not None}
    return PartitionConfig(
        method=OWN,
        unknown=site.name,
        holdout=[site.name] if site.partition.role == "test" else [],
        **{"val": study.val, "test": study.test, "seed": study.seed, **own},
        fold=study.fold,
        folds=study.folds,
    )


def _patients(patients: Patients) -> Finding:
    people = len(set(patients.of.values()))
    facts = {"scans": len(patients.told), "patients": people, "unknown": len(patients.unknown)}
    here = "\n".join(map(str, patients.counts()))
    found = f"{plural(len(patients.told), 'scan')} of {plural(people, 'patient')}"
    if patients.unknown:
        unknown = plural(len(patients.unknown), "scan")
        said = (
            f"{found}; nothing tells the patient of {unknown}, so each is taken as a patient of its own: set "
            "partition.patient_pattern or partition.patient_column in site.yaml if that is wrong."
        )
        return Finding("patients", WARNING, said, here, facts)
    return Finding("patients", OK, found, here, facts)


def _splits(site: SiteFile, dealt: Site) -> Finding:
    """Cases per split, against the least number behind any number that may leave."""
    counts = {split: len(getattr(dealt, split)) for split in SPLITS}
    least, said = site.policy.least_cases, ", ".join(f"{split} {count}" for split, count in counts.items())
    facts = counts | {"policy.least_cases": least}
    if site.partition.role == "train" and counts["train"] < least:
        said += f": with fewer than {least} cases to train (policy.least_cases) nothing may leave this site."
        return Finding(
            "splits", FIX, f"{said} Add cases, or lower it if your data officer agrees.", "", facts
        )
    few = [split for split in SPLITS if 0 < counts[split] < least]
    if few:
        said += f": results on {' and '.join(few)} stay here, being of fewer than {least} cases (policy.least_cases)."
        return Finding("splits", WARNING, said, "", facts)
    return Finding("splits", OK, said, "", facts)

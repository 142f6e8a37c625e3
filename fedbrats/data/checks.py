"""What is wrong with the files of a data set: every problem of every case, and which label numbers it uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fedbrats.data.cases import Case, ImageFile, as_labelled
from fedbrats.data.families import AUTO, Families, settle
from fedbrats.data.inspection import CaseCheck, Problem, case_files, inspect_case
from fedbrats.data.nifti import USUAL
from fedbrats.data.stream import Bounds, VolumeError, check_file
from fedbrats.data.walking import links_outside
from fedbrats.files import read_json, write_json

_FORMAT = 3  # of remembered findings; raise it when a check changes


@dataclass(frozen=True)
class DataCheck:
    """Findings of a data set.

    problems: errors and warnings by case; families: what the label numbers of each case mean, None when that could not
    be settled (then a problem with case "" says why); numbers: case name -> numbers in its label.
    """

    problems: list[Problem]
    families: Families | None
    numbers: dict[str, set[int]] = field(default_factory=dict)

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def bad_cases(self) -> set[str]:
        """Names of the cases with at least one error."""
        return {problem.case for problem in self.errors if problem.case}


def check_case(case: Case) -> list[Problem]:
    """List every problem of one case by itself; see `inspect_case`."""
    return inspect_case(case).problems


def check_cases(
    cases: Sequence[Case],
    workers: int = 1,
    labels: Any = AUTO,
    progress: Callable[[CaseCheck], Any] | None = None,
    memory: Path | None = None,
    bounds: Bounds = USUAL,
) -> DataCheck:
    """Check every case, look for one case under two names, and settle what the label numbers of each case mean.

    Args:
        cases: as `finding.find_cases` returns them.
        workers: threads, for the reasons that `prepare_cases` gives.
        labels: `data.labels`.
        progress: called after each case, in the order of `cases`.
        memory: folder of the findings of earlier runs, kept by file contents; None checks everything anew.
        bounds: how large a file may be and where it may lie.
    """
    results = []
    for result in _inspect_all(cases, workers, memory, bounds):
        results.append(result)
        if progress:
            progress(result)
    problems = [problem for result in results for problem in result.problems]
    problems += _duplicates(cases, results) + _folders_outside(bounds)
    numbers = {result.case: result.numbers for result in results if result.numbers}
    families = None
    try:
        families = settle(
            [as_labelled(case, numbers.get(case.name)) for case in cases], "data.labels", labels
        )
        problems += [_odd(case, families.odd[case.name]) for case in cases if case.name in families.odd]
    except ValueError as error:
        problems.append(Problem("", "", str(error), "error"))
    return DataCheck(sorted(problems, key=lambda p: (p.case, p.severity)), families, numbers)


def _odd(case: Case, why: str) -> Problem:
    return Problem(case.name, str(case.label.path) if case.label else "", why, "error")


def _inspect_all(
    cases: Sequence[Case], workers: int, memory: Path | None, bounds: Bounds
) -> Iterable[CaseCheck]:
    inspect = partial(_remembered, memory=memory) if memory else inspect_case
    inspect = partial(inspect, bounds=bounds)
    if workers <= 1 or len(cases) < 2:
        yield from map(inspect, cases)
        return
    with ThreadPoolExecutor(min(workers, len(cases))) as pool:
        yield from pool.map(inspect, cases)


def _remembered(case: Case, memory: Path, bounds: Bounds) -> CaseCheck:
    path = memory / f"{_contents_key(case, bounds)}.json"
    try:
        known = read_json(path)
        problems = [Problem(**problem) for problem in known["problems"]]
        return CaseCheck(known["case"], problems, set(known["numbers"]), known["hashes"])
    except (OSError, ValueError, TypeError, KeyError):  # unknown or damaged: check again
        result = inspect_case(case, bounds)
    write_json(path, asdict(result) | {"numbers": sorted(result.numbers)})
    return result


def _contents_key(case: Case, bounds: Bounds) -> str:
    head = [_FORMAT, case.name, case.family, case.faults, case.remarks, bounds.max_voxels, str(bounds.root)]
    key = hashlib.blake2b(json.dumps(head).encode(), digest_size=16)
    for kind, file in case_files(case).items():
        key.update(json.dumps([kind, *_place(file)]).encode())
        if file and file.channel in (None, 0):  # a 4D file once
            for path in file.paths:
                with suppress(VolumeError):
                    check_file(path, bounds)  # before an endless one is hashed
                    with path.open("rb") as handle:
                        key.update(hashlib.file_digest(handle, "blake2b").digest())
    return key.hexdigest()


def _place(file: ImageFile | None) -> list[Any]:
    """Where a file lies, for a key."""
    if file is None:
        return ["None", None]
    return [str(file.path), file.channel, *map(str, file.others)]


def _folders_outside(bounds: Bounds) -> list[Problem]:
    """One error for each linked folder that was not searched because it lies outside the data set's own."""
    if bounds.root is None:
        return []
    what = f"a link that leaves {bounds.root} (to {{}}); copy the folder, or set {bounds.group}links=follow"
    return [
        Problem(str(link.relative_to(bounds.root)), str(link), what.format(link.resolve()), "error")
        for link in links_outside(bounds.root)
    ]


def _duplicates(cases: Sequence[Case], results: Sequence[CaseCheck]) -> list[Problem]:
    """One error for each case that shares an image with an earlier one; the earlier one stays usable."""
    first: dict[str, str] = {}
    files = {case.name: case.images for case in cases}
    problems = []
    for result in sorted(results, key=lambda result: result.case):
        shared = [modality for modality, value in result.hashes.items() if value in first]
        if shared:
            file = files[result.case][shared[0]].path
            other = first[result.hashes[shared[0]]]
            what = f"duplicate case, {', '.join(shared)} as in {other}; expected different images"
            problems.append(Problem(result.case, str(file), what, "error"))
        for value in result.hashes.values():
            first.setdefault(value, result.case)
    return problems

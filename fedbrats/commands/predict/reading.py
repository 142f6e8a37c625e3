"""The cases to predict: found, checked and preprocessed one at a time; a label is welcome but not needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.commands.predict.arguments import PredictConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.annotators import read_file
from fedbrats.data.cache import CachedCase, prepare_case
from fedbrats.data.cases import Case, as_labelled
from fedbrats.data.families import AUTO, Families, lesions_of, settle
from fedbrats.data.family_table import ANNOTATORS, FAMILIES, Family
from fedbrats.data.finding import Say, find_cases
from fedbrats.data.inspection import Problem, inspect_case
from fedbrats.data.nifti import spacing_of
from fedbrats.data.regions import LabelSystem, label_numbers, to_canonical
from fedbrats.data.stream import Bounds
from fedbrats.data.walking import bounds_of
from fedbrats.files import read_json
from fedbrats.tasks import segmentation as task


class BadCase(ValueError):
    """A case that cannot be predicted; the message names the file and what was expected."""


@dataclass(frozen=True)
class Folder:
    """A data set to predict."""

    cases: list[Case]
    families: Families  # what the numbers of its labels mean, and those of the predictions
    cache: Path
    bounds: Bounds

    def read(self, case: Case) -> tuple[CachedCase, list[str]]:
        """The preprocessed case, and what is to be known of it: a label that had to be left out, warnings.

        Raises:
            BadCase: an image is missing or cannot be used.
            CacheError: the cache cannot be written.
        """
        check = inspect_case(case, self.bounds)
        errors = [problem for problem in check.problems if problem.severity == "error"]
        about_label = [p for p in errors if _about_label(case, p)]
        if bad := [p for p in errors if p not in about_label]:
            raise BadCase("; ".join(f"{p.file}: {p.what}" for p in bad))
        notes = [f"{p.file}: {p.what}" for p in about_label if case.label]
        if case.label and case.name in self.families.odd:
            notes.append(f"{case.label.path}: {self.families.odd[case.name]}")
        notices = [f"{p.file or p.case}: {p.what}" for p in check.problems if p.severity == "warning"]
        if notes:
            case, notes = replace(case, label=None), [f"not scored: {note}" for note in notes]
        try:
            return prepare_case(case, self.system_of(case), self.cache, self.bounds), [*notes, *notices]
        except ValueError as error:
            raise BadCase(str(error)) from error

    def system_of(self, case: Case) -> LabelSystem:
        """The numbers of a case. Raises ValueError: it fits no family that it could belong to."""
        if case.name not in self.families.by_case:
            raise ValueError(f"{case.name}: {self.families.odd[case.name]}")
        return self.families.by_case[case.name].labels

    def true_volumes(self, case: Case) -> dict[str, float]:
        """Volume in mL of each region of the label, 0 where it cannot be read."""
        if case.label is None:
            return dict.fromkeys(task.REGIONS, 0.0)
        try:
            voxels, source = read_file(case.label, self.bounds)
            masks = task.masks(to_canonical(voxels, self.system_of(case)), task.REGIONS)
        except ValueError:
            return dict.fromkeys(task.REGIONS, 0.0)
        millilitres = float(np.prod(spacing_of(source))) / 1000
        return {region: int(np.count_nonzero(mask)) * millilitres for region, mask in masks.items()}


def _about_label(case: Case, problem: Problem) -> bool:
    if case.label is None:
        return problem.what.startswith("segmentation is missing")
    return problem.file == str(case.label.path)


def open_folder(config: PredictConfig, cache: Path, run: Path, say: Say) -> Folder:
    """Find the cases below `config.data` and settle what their label numbers mean.

    Args:
        config: names the folder, what may be read of it, and what the numbers in its labels mean.
        cache: folder for preprocessed volumes.
        run: folder of the run of the first member; its data set's numbers are taken where neither label nor name tells.
        say: told what was passed over or decided about the files.

    Raises:
        ConfigError: no such folder, no case in it, or label numbers that cannot be settled.
    """
    labels = labels_for(config.labels, run)
    try:
        root = Path(config.data).expanduser()
        cases = find_cases(root, say, unlabelled=True, links=config.links, labels=labels)
        bounds = bounds_of(root, config.max_voxels, config.links, "")
        read = [as_labelled(case, _numbers(case, bounds)) for case in cases]
    except ValueError as error:
        raise ConfigError(str(error).replace("data.root", "data")) from error
    families = settle(read, "labels", labels, trained_on(run))
    lost = [
        case.name for case in cases if case.name not in families.by_case and case.name not in families.odd
    ]
    if lost:
        raise ConfigError(
            f"neither a label nor the name of {lost[0]} tells which numbers to write, and {run / 'partition.json'} "
            "names none for all its cases; set labels to a family, such as labels=gli2023"
        )
    return Folder(cases, families, cache, bounds)


def labels_for(labels: Any, run: Path) -> Any:
    """`labels` of this prediction; a model of counts of annotators brings its own.

    Raises:
        ConfigError: it is counts of annotators for one of model and option only.
    """
    trained = trained_on(run)
    counts = trained is not None and trained.labels == ANNOTATORS
    if counts and labels in (None, AUTO, ANNOTATORS.name):
        return ANNOTATORS.name
    if counts or labels == ANNOTATORS.name:
        is_not = "is" if counts else "is not"
        raise ConfigError(
            f"labels={labels}: the model of {run} {is_not} of counts of annotators; leave labels=auto."
        )
    return labels


def _numbers(case: Case, bounds: Bounds) -> set[int] | None:
    if case.label is None:
        return None
    try:
        return label_numbers(read_file(case.label, bounds)[0])
    except ValueError:
        return None  # said when its turn comes


def trained_on(run: Path) -> Family | None:
    """The numbers of the data of a run, None if it names none or several."""
    try:
        system = LabelSystem.from_json(read_json(run / "partition.json")["label_system"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    own = Family(system.name, "numbers of the model's data", system, lesions_of(system.to_json()), str(run))
    return next((family for family in FAMILIES if family.labels == system), own)

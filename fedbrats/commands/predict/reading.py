"""The cases to predict: found, checked and preprocessed one at a time; a label is welcome but not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedbrats.commands.predict.arguments import PredictConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase, prepare_case
from fedbrats.data.cases import Case, describe_labels, resolve_labels
from fedbrats.data.finding import Say, find_cases
from fedbrats.data.inspection import Problem, inspect_case
from fedbrats.data.nifti import read_volume, spacing_of
from fedbrats.data.regions import (
    BRATS_2017,
    BRATS_2023,
    LabelSystem,
    label_numbers,
    to_canonical,
)
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
    system: LabelSystem  # of its labels, and of the predictions
    sentence: str  # how it was found
    cache: Path
    bounds: Bounds

    def read(self, case: Case) -> tuple[CachedCase, list[str]]:
        """The preprocessed case, and what is wrong with its label if that had to be left out.

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
        unexpected = sorted(check.numbers - self.system.numbers)
        if unexpected and case.label:
            notes.append(
                f"{case.label.path}: unexpected labels {unexpected}, expected {sorted(self.system.numbers)}"
            )
        if notes:
            case, notes = replace(case, label=None), [f"not scored: {note}" for note in notes]
        try:
            return prepare_case(case, self.system, self.cache, self.bounds), notes
        except ValueError as error:
            raise BadCase(str(error)) from error

    def true_volumes(self, case: Case) -> dict[str, float]:
        """Volume in mL of each region of the label, 0 where it cannot be read."""
        if case.label is None:
            return dict.fromkeys(task.REGIONS, 0.0)
        try:
            voxels, source = read_volume(case.label.path, case.label.channel, self.bounds)
            masks = task.masks(to_canonical(voxels, self.system), task.REGIONS)
        except ValueError:
            return dict.fromkeys(task.REGIONS, 0.0)
        millilitres = float(np.prod(spacing_of(source))) / 1000
        return {region: int(np.count_nonzero(mask)) * millilitres for region, mask in masks.items()}


def _about_label(case: Case, problem: Problem) -> bool:
    if case.label is None:
        return problem.what.startswith("segmentation is missing")
    return problem.file == str(case.label.path)


def open_folder(config: PredictConfig, cache: Path, run: Path, say: Say) -> Folder:
    """Find the cases below `config.data` and settle their label numbers.

    Args:
        config: names the folder, what may be read of it, and the number of enhancing tumour in its files.
        cache: folder for preprocessed volumes.
        run: folder of the run of the first member; its data set's numbers are taken where there is no label.
        say: told what was passed over or decided about the files.

    Raises:
        ConfigError: no such folder, no case in it, or label numbers that cannot be settled.
    """
    et = config.labels.et
    if et not in (None, 3, 4):
        raise ConfigError(f"labels.et={et}: enhancing tumour is 3 or 4 in BraTS files.")
    try:
        root = Path(config.data).expanduser()
        cases = find_cases(root, say, unlabelled=True, links=config.links)
        bounds = bounds_of(root, config.max_voxels, config.links, "")
        system, sentence = _label_system(cases, et, run, bounds)
    except ValueError as error:
        text = str(error).replace("data.et_label", "labels.et").replace("data.root", "data")
        raise ConfigError(text) from error
    return Folder(cases, system, sentence, cache, bounds)


def _label_system(
    cases: Sequence[Case], et: int | None, run: Path, bounds: Bounds
) -> tuple[LabelSystem, str]:
    numbers: dict[str, set[int]] = {}
    for case in cases:
        if case.label is None:
            continue
        try:
            numbers[case.name] = label_numbers(read_volume(case.label.path, case.label.channel, bounds)[0])
        except ValueError:
            continue  # said when its turn comes
    labelled = [case for case in cases if case.name in numbers]
    if labelled:
        system = resolve_labels(labelled, numbers, et)
        return system, describe_labels(labelled, system, et)
    if et is not None:
        system = BRATS_2017 if et == 4 else BRATS_2023
        return system, f"Enhancing tumour is written as {et}, set by labels.et."
    file = run / "partition.json"
    try:
        stored = read_json(file)["label_system"]
        system = LabelSystem(**{**stored, "ignored": tuple(stored["ignored"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: names no label numbers ({error}); set labels.et=3 or labels.et=4"
        ) from error
    return (
        system,
        f"No case has a label; enhancing tumour is written as {system.et}, as in the data of {run}.",
    )

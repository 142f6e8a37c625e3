"""Label files of any tool: find them, pair predictions with references, tell their families."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from fedbrats.config.targets import ConfigError
from fedbrats.data.decathlon import IMAGE_FOLDERS, labels_beside
from fedbrats.data.decathlon import NAMING as DECATHLON
from fedbrats.data.families import Labelled, naming_of
from fedbrats.data.family_table import OWN
from fedbrats.data.file_names import case_and_kind, stem_of, wrapped
from fedbrats.data.finding import find_cases
from fedbrats.data.patients import same
from fedbrats.data.sentences import some
from fedbrats.data.walking import FOLLOW, visible_files
from fedbrats.inference.maps import SHARE
from fedbrats.tasks import segmentation as task

# What tools put behind the case name; stripped until none is left ("_seg_GroundTruth").
_WORDS = (
    *("seg", "segm", "segmentation", "label", "labels", "mask"),
    *("pred", "prediction", "gt", "groundtruth", "truth", "reference"),
)
_ENDINGS = (*(joint + word for word in _WORDS for joint in "_-"), "_automated_approx")
_MAPS = re.compile(rf".+_((probability|uncertainty_\w+)_({'|'.join(task.REGIONS)})|{SHARE})", re.IGNORECASE)


@dataclass(frozen=True)
class Files:
    """The label files of one case, more than one only by mistake."""

    case: str
    paths: list[Path]


@dataclass(frozen=True)
class Pair:
    """One case. fault: why the prediction cannot be used; lost: why there is nothing to hold it against."""

    case: str
    reference: Path | None
    prediction: Path | None
    fault: str = ""
    lost: str = ""


def case_name(path: Path) -> str:
    """Return the case of a label file: `<case>`, `<case>_seg` and the like, or the folder of `seg.nii.gz`."""
    parsed = case_and_kind(path)
    if parsed and wrapped(path):
        return parsed[0]
    stem = _stem(path)
    while True:
        ending = next((e for e in _ENDINGS if stem.lower().endswith(e) and len(stem) > len(e)), None)
        if ending is None:
            break
        stem = stem[: -len(ending)]
    return path.resolve().parent.name if stem.lower() in _WORDS else stem


def find_label_files(path: Path, note: Callable[[str], object] = lambda text: None) -> dict[str, Files]:
    """Find the label files at a path: a file, or all NIfTI files under a folder, by the name of their case.

    Images (`_t1ce`, `-t2f`, `imagesTr` of the Decathlon, ...), maps of probabilities and uncertainties, hidden files
    and what fedbrats wrote below the folder are no label files. Names that differ in letter case are one case.

    Args:
        path: file or folder.
        note: told what was passed over.

    Returns:
        Files by `patients.same` of the case name.

    Raises:
        ConfigError: no such path, or no label file.
    """
    if path.is_file():
        return {same(case_name(path)): Files(case_name(path), [path])}
    if not path.is_dir():
        raise ConfigError(f"{path}: no such file or folder")
    files: dict[str, Files] = {}
    passed: list[str] = []
    walked = visible_files(path, passed.append, links=FOLLOW)
    for file in walked:
        if _is_label(file):
            case = case_name(file)
            files.setdefault(same(case), Files(case, [])).paths.append(file)
    if not files:
        more = "".join(f"; {text}" for text in passed)
        raise ConfigError(f"{path}: no label file found, looked for .nii and .nii.gz in all subfolders{more}")
    for text in passed:
        note(text)
    if any((parsed := case_and_kind(file)) and parsed[1] != "seg" for file in walked):
        _take_adopted(path, files, note)
    return files


def _take_adopted(path: Path, files: dict[str, Files], note: Callable[[str], object]) -> None:
    """In a data set a label may have another name than its case, which `find_cases` knows."""
    for case in find_cases(path, links=FOLLOW):
        named = case.label and case.images and same(case_name(case.label.path))
        if case.label and named and named != same(case.name) and named in files:
            del files[named]
            files[same(case.name)] = Files(case.name, [case.label.path])
            note(f"{case.name}: {case.label.path.name} is its label, as it lies in the case's own folder")


def _is_label(file: Path) -> bool:
    stem = stem_of(file.name)
    if stem is None or _MAPS.fullmatch(stem):
        return False
    if file.parent.name in IMAGE_FOLDERS and (file.parent.parent / "dataset.json").is_file():
        return False
    parsed = case_and_kind(file)
    return parsed is None or parsed[1] == "seg"


def pair_files(
    predictions: Path,
    references: Path,
    asked: Collection[str] | None = None,
    only_predicted: bool = False,
    note: Callable[[str], object] = lambda text: None,
) -> tuple[list[Pair], list[Path]]:
    """Pair predictions with references by case name; two files are a pair whatever their names.

    Args:
        predictions: file or folder.
        references: file or folder.
        asked: names of the cases that are to be scored; None for those of the references (only the case of
            `predictions` if that is a file).
        only_predicted: leave out those without prediction, and let those without reference count.
        note: told what was passed over.

    Returns:
        One `Pair` per case, sorted, and the predictions that have no reference and were not asked for.

    Raises:
        ConfigError: as `find_label_files`, or no case has both.
    """
    guesses, truths = find_label_files(predictions, note), find_label_files(references, note)
    if predictions.is_file() and references.is_file():
        (truth,) = truths.values()
        return [Pair(truth.case, references, predictions)], []
    if not guesses.keys() & truths.keys():
        ours, theirs = (some(sorted(known.case for known in files.values())) for files in (guesses, truths))
        raise ConfigError(f"no case has both: {predictions} holds {ours}, {references} holds {theirs}")
    names = {same(case): case for case in asked or ()}
    if only_predicted or (asked is None and predictions.is_file()):
        wanted = set(guesses)
    else:
        wanted = set(names) if asked is not None else set(truths)
    pairs = [
        _pair(truths.get(key), guesses.get(key), names.get(key, ""))
        for key in sorted(
            wanted, key=lambda key: (truths.get(key) or guesses.get(key) or Files(key, [])).case
        )
    ]
    return pairs, [guesses[key].paths[0] for key in sorted(guesses.keys() - wanted)]


def _pair(truth: Files | None, guess: Files | None, name: str) -> Pair:
    fault = "" if guess else "no prediction"
    if guess and len(guess.paths) > 1:
        fault = f"two predictions, {guess.paths[0]} and {guess.paths[1]}; keep one"
    lost = "" if truth else "no reference"
    if truth and len(truth.paths) > 1:
        lost = f"two references, {truth.paths[0]} and {truth.paths[1]}; keep one"
    case = next(files.case for files in (truth, guess, Files(name, [])) if files)
    return Pair(case, truth.paths[0] if truth else None, guess.paths[0] if guess else None, fault, lost)


def labelled(case: str, file: Path, numbers: set[int] | None) -> Labelled:
    """What `families.settle` has to know of a label file of `case`; two files are a pair whatever they are called."""
    naming, stated = naming_of(case_name(file)), labels_beside(file)
    if naming == OWN:
        naming = naming_of(case, hyphens=_stem(file).lower().endswith("-seg"))
    return Labelled(case, DECATHLON if stated and naming == OWN else naming, file, numbers, stated)


def _stem(path: Path) -> str:
    return stem_of(path.name) or path.name

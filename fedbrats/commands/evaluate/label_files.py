"""Label files of any tool: find them, pair predictions with references, tell their families."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedbrats.config.targets import ConfigError
from fedbrats.data.decathlon import NAMING as DECATHLON
from fedbrats.data.decathlon import labels_beside
from fedbrats.data.families import Labelled, naming_of
from fedbrats.data.family_table import OWN
from fedbrats.data.nifti import SUFFIXES, Source, canonical_affine, canonical_shape

# What tools put behind the case name; stripped until none is left ("_seg_GroundTruth").
_WORDS = (
    *("seg", "segm", "segmentation", "label", "labels", "mask"),
    *("pred", "prediction", "gt", "groundtruth", "truth", "reference"),
)
_ENDINGS = (*(joint + word for word in _WORDS for joint in "_-"), "_automated_approx")
_IMAGES = re.compile(r"[_-](t1|t1ce|t1gd|t2|flair|t1n|t1c|t2w|t2f)$", re.IGNORECASE)
_AFFINE_TOLERANCE = 1e-2  # mm; headers hold float32, and quaternions lose a little more


@dataclass(frozen=True)
class Pair:
    """One case: its reference and, unless it is missing, its prediction."""

    case: str
    reference: Path
    prediction: Path | None


def case_name(path: Path) -> str:
    """Return the case of a label file: `<case>`, `<case>_seg` and the like, or the folder of `seg.nii.gz`."""
    stem = _stem(path)
    while True:
        ending = next((e for e in _ENDINGS if stem.lower().endswith(e) and len(stem) > len(e)), None)
        if ending is None:
            break
        stem = stem[: -len(ending)]
    return path.resolve().parent.name if stem.lower() in _WORDS else stem


def find_label_files(path: Path) -> dict[str, Path]:
    """Return case name -> label file for a file or for all NIfTI files under a folder, images left out.

    Files with the names of images (`_t1ce`, `-t2f`, ...) and hidden files are not label files.

    Raises:
        ConfigError: no such path, no label file, or two label files for one case.
    """
    if path.is_file():
        return {case_name(path): path}
    if not path.is_dir():
        raise ConfigError(f"{path}: no such file or folder")
    files: dict[str, Path] = {}
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith(".") or not name.lower().endswith(SUFFIXES) or _IMAGES.search(_stem(file)):
                continue
            case = case_name(file)
            if case in files:
                raise ConfigError(f"two label files for case {case}: {files[case]} and {file}; keep one")
            files[case] = file
    if not files:
        raise ConfigError(f"{path}: no label file found, looked for .nii and .nii.gz in all subfolders")
    return files


def pair_files(predictions: Path, references: Path) -> tuple[list[Pair], list[Path]]:
    """Pair predictions with references by case name; two files are a pair whatever their names.

    Returns:
        One `Pair` per reference, sorted by case (only the case of `predictions` if that is a file), and the
        predictions that have no reference.

    Raises:
        ConfigError: as `find_label_files`, or no case has both.
    """
    guesses, truths = find_label_files(predictions), find_label_files(references)
    if predictions.is_file() and references.is_file():
        (case,) = truths
        return [Pair(case, references, predictions)], []
    common = sorted(guesses.keys() & truths.keys())
    if not common:
        raise ConfigError(
            f"no case has both: {predictions} holds {_some(guesses)}, {references} holds {_some(truths)}"
        )
    wanted = common if predictions.is_file() else sorted(truths)
    pairs = [Pair(case, truths[case], guesses.get(case)) for case in wanted]
    return pairs, [guesses[case] for case in sorted(guesses.keys() - truths.keys())]


def same_grid(a: Source, b: Source) -> bool:
    """Tell whether two volumes have the same voxels in world space, however their axes are stored."""
    return canonical_shape(a) == canonical_shape(b) and np.allclose(
        canonical_affine(a), canonical_affine(b), rtol=0, atol=_AFFINE_TOLERANCE
    )


def labelled(case: str, file: Path, numbers: set[int] | None) -> Labelled:
    """What `families.settle` has to know of a label file of `case`; two files are a pair whatever they are called."""
    naming, stated = naming_of(case_name(file)), labels_beside(file)
    if naming == OWN:
        naming = naming_of(case, hyphens=_stem(file).lower().endswith("-seg"))
    return Labelled(case, DECATHLON if stated and naming == OWN else naming, file, numbers, stated)


def _stem(path: Path) -> str:
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")

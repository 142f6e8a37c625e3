"""What the name of a file says: of which case it is, and which modality or the segmentation."""

from __future__ import annotations

import os
from pathlib import Path

from fedbrats.data.nifti import SUFFIXES

# What may follow the case name, in lower case and without .nii/.nii.gz; BraTS 2023 and later use hyphens.
OLD = {"_t1": "t1", "_t1ce": "t1ce", "_t1gd": "t1ce", "_t2": "t2", "_flair": "flair", "_seg": "seg"}
OLD |= {"_segm": "seg", "_glistrboost_manuallycorrected": "seg"}
NEW = {"-t1n": "t1", "-t1c": "t1ce", "-t2w": "t2", "-t2f": "flair", "-seg": "seg"}
MOST_ANNOTATORS = 9  # whose masks a case may have
OLD |= {f"_annotator{number}": f"annotator{number}" for number in range(1, MOST_ANNOTATORS + 1)}
NEW |= {f"-annotator{number}": f"annotator{number}" for number in range(1, MOST_ANNOTATORS + 1)}
_BARE = {ending[1:]: kind for ending, kind in (NEW | OLD).items()}  # t1.nii.gz in the folder of its case
_MACHINE_MADE = ("_automated_approx_segm",)  # UPENN-GBM ships them beside the corrected segmentations


def stem_of(name: str) -> str | None:
    """`name` without .nii or .nii.gz, None if it does not end so."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    return None if suffix is None else name[: -len(suffix)]


def case_and_kind(path: Path) -> tuple[str, str] | None:
    """Split the name of a volume into case name and modality (or "seg", or "annotator1" ...); None for others.

    A file in a folder that is itself called like a volume (`<case>_flair.nii/00000057_brain_flair.nii`) is what that
    folder says; a file that is called like its modality alone (`t1.nii.gz`) is of the case that its folder names.
    """
    stem = stem_of(path.name)
    if stem is None or stem.lower().endswith(_MACHINE_MADE):
        return None
    if wrapped(path):
        return _split(stem_of(path.parent.name) or "")
    if stem.lower() in _BARE:
        return Path(os.path.abspath(path.parent)).name, _BARE[stem.lower()]
    return _split(stem)


def wrapped(path: Path) -> bool:
    """Whether the folder of a file is called like a volume of a case, as copies on Kaggle have it."""
    stem = stem_of(path.parent.name)
    return stem is not None and _split(stem) is not None


def named_by_folder(path: Path) -> bool:
    """Whether a volume is called like its modality alone, so that its folder names the case."""
    return not wrapped(path) and (stem_of(path.name) or "").lower() in _BARE


def _split(stem: str) -> tuple[str, str] | None:
    for endings in (NEW, OLD):
        for ending, kind in endings.items():
            if stem.lower().endswith(ending) and len(stem) > len(ending):
                return stem[: -len(ending)], kind
    return None

"""Cases of a data set as they lie on disk: which file is which modality of which case."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedbrats.data import decathlon
from fedbrats.data.cases import MODALITIES, Case, ImageFile, patient_of
from fedbrats.data.nifti import SUFFIXES

# What may follow the case name, in lower case and without .nii/.nii.gz; BraTS 2023 and later use hyphens.
_OLD = {"_t1": "t1", "_t1ce": "t1ce", "_t1gd": "t1ce", "_t2": "t2", "_flair": "flair", "_seg": "seg"}
_OLD |= {"_segm": "seg", "_glistrboost_manuallycorrected": "seg"}
_NEW = {"-t1n": "t1", "-t1c": "t1ce", "-t2w": "t2", "-t2f": "flair", "-seg": "seg"}
_MACHINE_MADE = ("_automated_approx_segm",)  # UPENN-GBM ships them beside the corrected segmentations


def find_cases(root: Path | str) -> list[Case]:
    """Find every case under a folder, flat or nested, sorted by name.

    Understands the names of BraTS 2017 to 2021 and FeTS, of BraTS 2023 and later, of UPENN-GBM (corrected
    segmentations only) and of the TCGA collections, and the labelled cases of the Medical Segmentation
    Decathlon (`dataset.json` with 4D files). Hidden files, among them the `._` files of macOS, are passed
    over. A case that lacks a modality or its segmentation is still returned.

    Raises:
        ValueError: no such folder, no case in it, or two files for the same volume of one case.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; data.root must name the folder that holds the cases")
    files = _visible_files(root)
    groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        parsed = _parse(path)
        if parsed:
            groups[parsed[0]][parsed[1]].append(path)
    _adopt_lone_labels(groups)
    _refuse_doubles(groups)
    cases = [_case(name, {kind: paths[0] for kind, paths in group.items()}) for name, group in groups.items()]
    for path in files:
        if path.name == "dataset.json":
            cases += [_decathlon_case(entry) for entry in decathlon.read_entries(path)]
    if not cases:
        raise ValueError(
            f"{root}: no case found; looked in all subfolders for .nii and .nii.gz files named <case>_t1, "
            "_t1ce, _t2, _flair, _seg (BraTS 2017 to 2021, FeTS, UPENN-GBM) or <case>-t1n, -t1c, -t2w, -t2f, "
            "-seg (BraTS 2023 and later), and for the dataset.json of the Medical Segmentation Decathlon"
        )
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise ValueError(f"{root}: found twice, in two data sets: {_some(twice)}; keep one of each")
    return sorted(cases, key=lambda case: case.name)


def _visible_files(root: Path) -> list[Path]:
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _parse(path: Path) -> tuple[str, str] | None:
    """Split a file name into case name and modality (or "seg"); None for any other file."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        return None
    stem = path.name[: -len(suffix)]
    if stem.lower().endswith(_MACHINE_MADE):
        return None
    for endings in (_NEW, _OLD):
        for ending, kind in endings.items():
            if stem.lower().endswith(ending) and len(stem) > len(ending):
                return stem[: -len(ending)], kind
    return None


def _adopt_lone_labels(groups: dict[str, dict[str, list[Path]]]) -> None:
    """Give a segmentation with a name of its own to the one case of its folder that lacks one.

    BraTS 2020 ships such a file: the segmentation of Training_355 carries the name of another project.
    """
    for name in [name for name, group in groups.items() if set(group) == {"seg"}]:
        folder = groups[name]["seg"][0].parent
        others = [
            group
            for group in groups.values()
            if "seg" not in group and any(path.parent == folder for paths in group.values() for path in paths)
        ]
        if len(others) == 1:
            others[0]["seg"] = groups.pop(name)["seg"]


def _refuse_doubles(groups: Mapping[str, Mapping[str, list[Path]]]) -> None:
    doubles = [
        f"{name} {kind}: {paths[0]} and {paths[1]}"
        for name, group in sorted(groups.items())
        for kind, paths in group.items()
        if len(paths) > 1
    ]
    if doubles:
        more = f" (and {len(doubles) - 3} more)" if len(doubles) > 3 else ""
        raise ValueError(
            f"{len(doubles)} volumes were found twice; keep one file of each: {'; '.join(doubles[:3])}{more}"
        )


def _case(name: str, paths: Mapping[str, Path]) -> Case:
    images = {modality: ImageFile(paths[modality]) for modality in MODALITIES if modality in paths}
    label = ImageFile(paths["seg"]) if "seg" in paths else None
    return Case(name, patient_of(name), images, label, _family(name, paths.values()))


def _family(name: str, paths: Iterable[Path]) -> str:
    lower = name.lower()
    if lower.startswith("upenn-gbm"):
        return "upenn"
    if lower.startswith("fets"):
        return "fets"
    stems = [path.name.lower().removesuffix(".gz").removesuffix(".nii") for path in paths]
    return "brats2023" if any(stem.endswith(tuple(_NEW)) for stem in stems) else "brats2017-2021"


def _decathlon_case(entry: decathlon.Entry) -> Case:
    images = {}
    if entry.image.is_file():
        images = {modality: ImageFile(entry.image, entry.channels[modality]) for modality in MODALITIES}
    label = ImageFile(entry.label) if entry.label.is_file() else None
    return Case(entry.name, patient_of(entry.name), images, label, "msd")


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" (and {len(names) - 3} more)" if len(names) > 3 else "")

"""Cases of a data set as they lie on disk: which file is which modality of which case."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedbrats.config.names import fault
from fedbrats.data import decathlon
from fedbrats.data.annotators import by_annotators
from fedbrats.data.cases import MODALITIES, Case, ImageFile
from fedbrats.data.families import AUTO, naming_of
from fedbrats.data.family_table import ANNOTATORS
from fedbrats.data.file_names import (
    MOST_ANNOTATORS,
    NEW,
    case_and_kind,
    named_by_folder,
    stem_of,
    wrapped,
)
from fedbrats.data.patients import same
from fedbrats.data.sentences import some
from fedbrats.data.walking import INSIDE, visible_files

Say = Callable[[str], object]

# Names of known collections are those of somebody: such a label is never given to a case of another name.
_NAMED = re.compile(r"(brats|fets|upenn|ucsf|ucsd|tcga|cbica|tcia|tmc|sub-)", re.IGNORECASE)


@dataclass
class _Group:
    """The files of one case: its name as its files spell it, kind -> files, and what was decided about them."""

    spelled: Counter[str] = field(default_factory=Counter)
    files: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name that most of its files have."""
        return min(self.spelled, key=lambda name: (-self.spelled[name], name))

    @property
    def folders(self) -> set[Path]:
        return {path.parent for paths in self.files.values() for path in paths}


def find_cases(
    root: Path | str,
    say: Say = lambda text: None,
    unlabelled: bool = False,
    links: str = INSIDE,
    labels: Any = AUTO,
) -> list[Case]:
    """Find every case under a folder, flat or nested, sorted by name.

    Understands the names of BraTS 2017 to 2021 and FeTS, of BraTS 2023 and later, of UPENN-GBM (corrected
    segmentations only) and of the TCGA collections, in any letter case; volumes that are called like their modality
    alone in a folder that names the case; and the Medical Segmentation Decathlon (`dataset.json` with 4D files).
    Hidden files, among them the `._` files of macOS, and what fedbrats itself has written are passed over. A case
    that lacks a modality or its segmentation is still returned; `Case.faults` and `Case.remarks` say what else is
    wrong with its files or was decided about them.

    Args:
        root: the folder.
        say: told in one sentence each what was passed over or decided for many files at once.
        unlabelled: also the test cases of the Decathlon, which have no labels.
        links: "inside" passes over linked folders that lie outside `root`, "follow" searches them too.
        labels: `data.labels`; with "annotators" the label of a case is the sum of its annotators' masks.

    Raises:
        ValueError: no such folder, or no case in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; data.root must name the folder that holds the cases")
    notes: list[str] = []
    files = visible_files(root, notes.append, links)
    cases = _named_cases(files, notes.append) + _decathlon_cases(root, files, notes.append, unlabelled)
    if not cases:
        passed = "".join(f". {note}" for note in notes)
        raise ValueError(
            f"{root}: no case found; looked in all subfolders for .nii and .nii.gz files named <case>_t1, "
            "_t1ce, _t2, _flair, _seg (BraTS 2017 to 2021, FeTS, UPENN-GBM) or <case>-t1n, -t1c, -t2w, -t2f, "
            "-seg (BraTS 2023 and later), for t1, t1ce, t2, flair, seg in folders that name the case, and for the "
            f"dataset.json of the Medical Segmentation Decathlon{passed}"
        )
    for note in notes:
        say(note)
    cases = sorted(map(_named_well, _joined(cases)), key=lambda case: case.name)
    return [by_annotators(case, unlabelled) for case in cases] if labels == ANNOTATORS.name else cases


def _named_cases(files: Sequence[Path], say: Say) -> list[Case]:
    groups: dict[str, _Group] = defaultdict(_Group)
    for path, name, kind in _named_files(files):
        group = groups[same(name)]
        group.spelled[name] += 1
        group.files[kind].append(path)
    _adopt_lone_labels(groups)
    volumes = [path for group in groups.values() for paths in group.files.values() for path in paths]
    if inside := [path for path in volumes if wrapped(path)]:
        shown = Path(inside[0].parent.name, inside[0].name)
        say(
            f"{len(inside)} volumes lie in folders that are called like them, which name the case, as in {shown}"
        )
    if bare := sorted({path.parent.name for path in volumes if named_by_folder(path)}):
        say(f"named by their folders, as the files tell the modality alone: {some(bare)}")
    return [_case(group) for group in groups.values()]


_INNER = re.compile(r"(\d+)_(?:brain|final)", re.IGNORECASE)  # 00000057_brain_t1, 00000057_final_seg


def _named_files(files: Sequence[Path]) -> list[tuple[Path, str, str]]:
    """Every volume with its case name and modality; files with an inner name alone in a folder are of its case."""
    found = [(path, *parsed) for path in files if (parsed := case_and_kind(path))]
    inner = {
        path: match[1] for path, name, _ in found if (match := _INNER.fullmatch(name)) and not wrapped(path)
    }
    numbers: dict[Path, set[str]] = defaultdict(set)
    for path, name, _ in found:
        numbers[path.parent].add(inner.get(path, name))
    for path in inner:
        if len(numbers[path.parent]) == 1:
            inner[path] = Path(os.path.abspath(path.parent)).name
    return [(path, inner.get(path, name), kind) for path, name, kind in found]


def _adopt_lone_labels(groups: dict[str, _Group]) -> None:
    """Give a segmentation with a name of its own to the case in whose own folder it lies, if that lacks one.

    BraTS 2020 ships such a file: the segmentation of Training_355 carries the name of another project. The folder is
    called like the case and holds nothing of another one, and the label is not called like a case itself.
    """
    forms = {_form(group.name) for group in groups.values() if set(group.files) - {"seg"}}
    for key in [key for key, group in groups.items() if set(group.files) == {"seg"}]:
        name, labels = groups[key].name, groups[key].files["seg"]
        if _NAMED.match(name) or _form(name) in forms or len(labels) > 1:
            continue
        folder = labels[0].parent
        inside = [other for other in groups.values() if folder in other.folders and other is not groups[key]]
        if len(inside) != 1 or "seg" in inside[0].files or same(inside[0].name) != same(folder.name):
            continue
        inside[0].files["seg"] = groups.pop(key).files["seg"]
        inside[0].remarks.append(
            f"{labels[0].name} was taken as its segmentation: it has another name, but lies in the case's own folder"
        )


def _form(name: str) -> str:
    """What names of one kind have in common: letters as they are in lower case, every number as 0."""
    return re.sub(r"\d+", "0", name.casefold())


def _case(group: _Group) -> Case:
    name, files = group.name, {kind: paths[0] for kind, paths in group.files.items()}
    images = {modality: ImageFile(files[modality]) for modality in MODALITIES if modality in files}
    label = ImageFile(files["seg"]) if "seg" in files else None
    doubles = {kind: paths for kind, paths in group.files.items() if len(paths) > 1}
    faults = [
        f"{len(paths)} files are its {kind}, {paths[0]} and {paths[1]}; keep one"
        for kind, paths in sorted(doubles.items())
    ]
    remarks = list(group.remarks)
    if len(group.spelled) > 1:
        remarks.append(
            f"its files spell its name in {len(group.spelled)} ways: {some(sorted(group.spelled))}"
        )
    family = naming_of(name, _hyphens(files.values()))
    numbered = (f"annotator{number}" for number in range(1, MOST_ANNOTATORS + 1))
    masks = tuple(ImageFile(files[kind]) for kind in numbered if kind in files)
    return Case(name, images, label, family, tuple(faults), tuple(remarks), masks)


def _hyphens(paths: Iterable[Path]) -> bool:
    stems = [(stem_of(path.parent.name if wrapped(path) else path.name) or "").lower() for path in paths]
    return any(stem.endswith(tuple(NEW)) for stem in stems)


def _decathlon_cases(root: Path, files: Sequence[Path], say: Say, unlabelled: bool) -> list[Case]:
    descriptions = [path for path in files if path.name == "dataset.json"]
    beside = root.resolve().parent / "dataset.json"
    inside_one = not descriptions and root.resolve().name in decathlon.IMAGE_FOLDERS and beside.is_file()
    entries: list[decathlon.Entry] = []
    for path in [beside] if inside_one else descriptions:
        try:
            entries += decathlon.read_entries(path, say)
        except ValueError as error:
            say(f"passed over: {error}")
    if inside_one:
        entries = [entry for entry in entries if entry.image.resolve().parent == root.resolve()]
    tests = [entry for entry in entries if entry.label is None]
    entries = [entry for entry in entries if entry.label is not None]
    if absent := [entry.name for entry in tests if not entry.image.is_file()]:
        say(f"test cases of the Decathlon without a file: {some(absent)}")
    present = [entry for entry in tests if entry.image.is_file()]
    if present and not unlabelled:
        say(
            f"left out, test cases of the Decathlon without labels: {some([entry.name for entry in present])}"
        )
    if unlabelled:
        entries += present
    return [_decathlon_case(entry) for entry in entries]


def _decathlon_case(entry: decathlon.Entry) -> Case:
    images = {}
    if entry.image.is_file():
        images = {modality: ImageFile(entry.image, entry.channels[modality]) for modality in MODALITIES}
    label = ImageFile(entry.label) if entry.label is not None and entry.label.is_file() else None
    return Case(entry.name, images, label, decathlon.NAMING)


def _joined(cases: Sequence[Case]) -> list[Case]:
    """One case of each name; a name that two data sets have is a fault of that case."""
    by_name: dict[str, Case] = {}
    for case in cases:
        known = by_name.setdefault(same(case.name), case)
        if known is not case:
            twice = f"found twice, in two data sets ({_place(known)} and {_place(case)}); keep one"
            by_name[same(case.name)] = replace(known, faults=(*known.faults, twice))
    return list(by_name.values())


def _named_well(case: Case) -> Case:
    reason = fault(case.name)
    return replace(case, faults=(*case.faults, f"its name {reason}; rename it")) if reason else case


def _place(case: Case) -> str:
    files = [*case.images.values(), case.label]
    return next((str(file.path.parent) for file in files if file), "no file")

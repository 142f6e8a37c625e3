"""What is wrong with the files of one case: each volume is read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedbrats.data import decathlon
from fedbrats.data.annotators import read_file
from fedbrats.data.cases import MODALITIES, Case, ImageFile
from fedbrats.data.family_table import OWN_HYPHENS
from fedbrats.data.grids import difference, forms_apart
from fedbrats.data.nifti import USUAL, Source
from fedbrats.data.regions import label_numbers
from fedbrats.data.stream import Bounds

_SUFFIXES = {
    "hyphens": {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"},
    "other": {name: f"_{name}" for name in (*MODALITIES, "seg")},
}


@dataclass(frozen=True)
class Problem:
    """One finding. case: its name, "" for the whole data set; file: path, "" if there is none.

    what: the fault and what was expected; severity: "error" or "warning".
    """

    case: str
    file: str
    what: str
    severity: str

    def __str__(self) -> str:
        return f"{self.severity}: " + ": ".join(filter(None, [self.file or self.case, self.what]))


@dataclass(frozen=True)
class CaseCheck:
    """Findings of one case, the numbers in its label, and modality -> hash of its voxels."""

    case: str
    problems: list[Problem]
    numbers: set[int]
    hashes: dict[str, str]


class _Findings:
    def __init__(self, case: str) -> None:
        self.case = case
        self.problems: list[Problem] = []

    def error(self, file: Path | str, what: str) -> None:
        self._add(Problem(self.case, str(file), what, "error"))

    def warning(self, file: Path | str, what: str) -> None:
        self._add(Problem(self.case, str(file), what, "warning"))

    def _add(self, problem: Problem) -> None:
        if problem not in self.problems:  # the four channels of a damaged 4D file say the same
            self.problems.append(problem)


def case_files(case: Case) -> dict[str, ImageFile | None]:
    """Return the four images and the segmentation ("seg") of a case, None for what was not found."""
    return {modality: case.images.get(modality) for modality in MODALITIES} | {"seg": case.label}


def inspect_case(case: Case, bounds: Bounds = USUAL) -> CaseCheck:
    """Read every volume of a case once, within `bounds`, and check it.

    Errors: faults of the case; missing modality or segmentation; a segmentation without images; missing, empty,
    truncated or endless file; NaN or infinity; a volume of zeros; labels that are no whole numbers; shape or affine
    that differ, in canonical orientation, from most volumes of the case. Warnings: remarks on the case; neither sform
    nor qform; both, but apart; an image that is nowhere 0; segmentation without tumour; one image under two modalities.
    """
    findings = _Findings(case.name)
    for fault in case.faults:
        findings.error("", fault)
    for remark in case.remarks:
        findings.warning("", remark)
    sources: dict[Path, Source] = {}
    hashes: dict[str, str] = {}
    numbers: set[int] = set()
    files = case_files(case)
    if not case.images and case.label:
        findings.error(case.label.path, "a segmentation without images, expected those of its case beside it")
    for kind, file in files.items():
        if file is None and kind != "seg" and not case.images and case.label:
            continue
        if file is None:
            findings.error(
                _expected(case, kind), f"{_words(kind)} is missing, expected {_expected(case, kind)}"
            )
            continue
        try:
            data, sources[file.path] = read_file(file, bounds)
        except ValueError as error:
            findings.error(file.path, str(error).removeprefix(f"{file.path}: "))
            continue
        if kind == "seg":
            numbers = _check_label(findings, file.path, data)
        elif _check_image(findings, file.path, kind, data):
            hashes[kind] = _hash(data)
    _check_spaces(findings, sources)
    for first, second in _pairs_alike(hashes):
        findings.warning(files[second].path, f"holds the same voxels as {first}")  # type: ignore[union-attr]
    return CaseCheck(case.name, findings.problems, numbers, hashes)


def _words(kind: str) -> str:
    return "segmentation" if kind == "seg" else f"modality {kind}"


def _expected(case: Case, kind: str) -> str:
    if case.family == decathlon.NAMING:
        return f"{'labelsTr' if kind == 'seg' else 'imagesTr'}/{case.name}.nii.gz"
    hyphens = case.family == OWN_HYPHENS or case.family.startswith("BraTS-")  # as 2023 and later name files
    suffixes = _SUFFIXES["hyphens" if hyphens else "other"]
    folder = next((file.path.parent for file in [*case.images.values(), case.label] if file), Path())
    return str(folder / f"{case.name}{suffixes[kind]}.nii.gz")


def _check_image(findings: _Findings, path: Path, kind: str, data: np.ndarray) -> bool:
    """Report what is wrong with the voxels of an image; True when they are usable."""
    if data.dtype.kind == "f":
        bad = int(data.size - np.count_nonzero(np.isfinite(data)))
        if bad:
            findings.error(path, f"{bad} of {data.size} voxels are NaN or infinite, expected numbers")
            return False
    if not data.any():
        findings.error(path, f"all voxels are zero, expected a {kind} image")
        return False
    if data.all():
        findings.warning(
            path, "no voxel is 0, so all of it is taken for brain; expected a skull-stripped image"
        )
    return True


def _check_label(findings: _Findings, path: Path, data: np.ndarray) -> set[int]:
    try:
        numbers = label_numbers(data)
    except ValueError as error:
        findings.error(path, f"{error}")
        return set()
    if numbers == {0}:
        findings.warning(path, "no voxel is labelled as tumour")
    return numbers


def _check_spaces(findings: _Findings, sources: Mapping[Path, Source]) -> None:
    """Compare every volume with the one that agrees with most others, so that only the odd one is named."""
    if not sources:
        return
    paths = list(sources)
    agreeing = [sum(difference(sources[a], sources[b]) is None for b in paths) for a in paths]
    reference = paths[int(np.argmax(agreeing))]
    for path in paths:
        if other := difference(sources[path], sources[reference]):
            findings.error(path, f"{other} of {reference.name}")
        source = sources[path]
        if not (source.sform_code or source.qform_code):
            findings.warning(path, "neither sform nor qform is set; its orientation is a guess")
        if apart := forms_apart(source):
            findings.warning(path, f"qform and sform lie up to {apart:.3g} mm apart; the sform is taken")


def _hash(data: np.ndarray) -> str:
    # one number format, so that an integer and a float copy of an image count as the same
    return hashlib.blake2b(np.ascontiguousarray(data, np.float32).tobytes(), digest_size=16).hexdigest()


def _pairs_alike(hashes: Mapping[str, str]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    pairs = []
    for kind, value in hashes.items():
        if value in first:
            pairs.append((first[value], kind))
        else:
            first[value] = kind
    return pairs

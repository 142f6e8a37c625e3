"""A case of a data set: its files, its patient, and which label numbers the data set uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbrats.config.targets import ConfigError
from fedbrats.data import decathlon
from fedbrats.data.regions import BRATS_2017, BRATS_2023, BRATS_2024, LabelSystem

MODALITIES = ("t1", "t1ce", "t2", "flair")
FAMILIES = ("brats2017-2021", "fets", "brats2023", "upenn", "msd")


@dataclass(frozen=True)
class ImageFile:
    """One volume: a 3D file, or one channel of a 4D file."""

    path: Path
    channel: int | None = None


@dataclass(frozen=True)
class Case:
    """One imaging session.

    images: modality -> file, without an entry for a modality that was not found; label: segmentation, if any; family:
    naming scheme; faults: why its files cannot be used as they lie there; remarks: what was decided about them.
    """

    name: str
    images: dict[str, ImageFile]
    label: ImageFile | None
    family: str
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def resolve_labels(
    cases: Sequence[Case], numbers_seen: Mapping[str, set[int]], et_label: int | None = None
) -> LabelSystem:
    """Return the one label system of a data set.

    Args:
        cases: the cases of the data set.
        numbers_seen: case name -> distinct numbers in its label file (`regions.label_numbers`).
        et_label: `data.et_label`, the number of enhancing tumour; None decides by names and numbers.

    The naming family says what to expect: ET 4 for BraTS 2017 to 2021, FeTS and UPENN-GBM; ET 3 for BraTS
    2023 and later, where a 4 beside it is the resection cavity of BraTS 2024; `dataset.json` for the
    Decathlon. Families may be mixed when each is consistent and all give the same numbers.

    Raises:
        ConfigError: numbers that contradict the family or `et_label`, both ET numbers in use, or families
            that differ; the message names cases and the fix.
    """
    if et_label not in (None, 3, 4):
        raise ConfigError(f"data.et_label is {et_label}; enhancing tumour is 3 or 4 in BraTS files")
    systems: dict[str, LabelSystem] = {}
    for family in FAMILIES:
        members = [case for case in cases if case.family == family]
        if members:
            seen = {case.name: numbers_seen.get(case.name, set()) for case in members}
            systems[family] = _family_labels(family, members, seen, et_label)
    if not systems:
        raise ConfigError("no case to recognise label numbers from")
    first, *others = systems.items()
    for family, system in others:
        if (system.ncr, system.ed, system.et) != (first[1].ncr, first[1].ed, first[1].et):
            raise ConfigError(
                f"data.root mixes label numbers: {first[0]} names have {_numbers(first[1])}, {family} names "
                f"have {_numbers(system)}; keep one kind of data set, or convert the segmentations"
            )
    return max(systems.values(), key=lambda system: len(system.ignored))


def _family_labels(
    family: str, cases: Sequence[Case], seen: Mapping[str, set[int]], et_label: int | None
) -> LabelSystem:
    threes = [name for name, numbers in seen.items() if 3 in numbers]
    fours = [name for name, numbers in seen.items() if 4 in numbers]
    if family == "msd":
        return _decathlon_labels(cases, et_label)
    new = family == "brats2023"
    if et_label is None and not new and threes:
        both = f", and 4, as {_some(fours)} does" if fours else ""
        raise ConfigError(
            f"label numbers are ambiguous: {family} names say that enhancing tumour is 4, but "
            f"{_some(threes)} holds 3{both}; set data.et_label to 3 or 4, or correct the files"
        )
    if et_label is None and new and fours and not threes:
        raise ConfigError(
            f"label numbers are ambiguous: {family} names say that enhancing tumour is 3, but no case "
            f"holds 3 and {_some(fours)} holds 4; set data.et_label to 4, or to 3 if 4 is the cavity"
        )
    if new and fours and et_label != 4:
        _refuse_paediatric(fours)
    et = et_label or (3 if new else 4)
    contrary = threes if et == 4 else [] if new else fours
    if contrary:
        raise ConfigError(f"data.et_label is {et}, but {_some(contrary)} holds {7 - et}; correct the files")
    if et == 4:
        return BRATS_2017
    return BRATS_2024 if fours else BRATS_2023


def _decathlon_labels(cases: Sequence[Case], et_label: int | None) -> LabelSystem:
    files = [case.label or image for case in cases for image in list(case.images.values())[:1]]
    paths = sorted({file.path.parent.parent / "dataset.json" for file in files})
    if not paths:
        raise ConfigError("no readable case of the Decathlon to recognise label numbers from")
    system = decathlon.read_labels(paths[0])
    for path in paths[1:]:
        if decathlon.read_labels(path) != system:
            raise ConfigError(f"{paths[0]} and {path} give different label numbers; keep one of them")
    if et_label not in (None, system.et):
        raise ConfigError(f"data.et_label is {et_label}, but {paths[0]} says {system.et}; leave it out")
    return system


def _refuse_paediatric(fours: Sequence[str]) -> None:
    # BraTS-PED 2024 counts differently (1 ET, 2 NCR, 3 cyst, 4 oedema) under names like those of 2023.
    paediatric = [name for name in fours if name.upper().startswith("BRATS-PED")]
    if paediatric:
        raise ConfigError(
            f"{_some(paediatric)} holds 4: the label numbers of BraTS-PED 2024 have another meaning; "
            "convert the segmentations to NCR 1, ED 2, ET 3"
        )


def describe_labels(cases: Sequence[Case], system: LabelSystem, et_label: int | None = None) -> str:
    """Say in one sentence for the report which label numbers are in use and why."""
    families = sorted({case.family for case in cases})
    if et_label is not None:
        why = f"set by data.et_label={et_label}"
    elif families == ["msd"]:
        why = "read from dataset.json"
    else:
        why = f"recognised from {' and '.join(families)} names and the numbers in the files"
    ignored = f"; label {', '.join(map(str, system.ignored))} is read as background" if system.ignored else ""
    return f"Enhancing tumour is label {system.et} ({_numbers(system)}), {why}{ignored}."


def _numbers(system: LabelSystem) -> str:
    return f"NCR {system.ncr}, ED {system.ed}, ET {system.et}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" (and {len(names) - 3} more)" if len(names) > 3 else "")

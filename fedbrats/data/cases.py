"""A case of a data set: its files, its patient, and what tells its family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedbrats.data import decathlon
from fedbrats.data.families import Labelled

MODALITIES = ("t1", "t1ce", "t2", "flair")


@dataclass(frozen=True)
class ImageFile:
    """One volume: a 3D file, or one channel of a 4D file.

    others: of a label that is a sum of masks, the files of the further annotators; see `data.annotators`.
    """

    path: Path
    channel: int | None = None
    others: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return self.path, *self.others


@dataclass(frozen=True)
class Case:
    """One imaging session.

    images: modality -> file, without an entry for a modality that was not found; label: segmentation, if any; family:
    how it is called, as `families.naming_of` says; faults: why its files cannot be used as they lie there; remarks:
    what was decided about them; masks: one per annotator of a structure, in the order of their numbers.
    """

    name: str
    images: dict[str, ImageFile]
    label: ImageFile | None
    family: str
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    masks: tuple[ImageFile, ...] = ()


def as_labelled(case: Case, numbers: set[int] | None) -> Labelled:
    """What `families.settle` has to know of a case; `numbers` in its label, None if there is none to be read."""
    image = next(iter(case.images.values()), None)
    file = case.label or image
    stated = decathlon.labels_beside(file.path) if file and case.family == decathlon.NAMING else None
    return Labelled(case.name, case.family, case.label.path if case.label else None, numbers, stated)

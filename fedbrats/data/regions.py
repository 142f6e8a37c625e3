"""Label numbers and regions: the one place that knows how BraTS labels become WT, TC and ET and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

REGIONS = ("WT", "TC", "ET")  # order of the region channels everywhere
BACKGROUND, NCR, ED, ET = 0, 1, 2, 3  # canonical labels in memory
NEARLY = 1e-3  # how far a label may lie from the whole number that it stands for


@dataclass(frozen=True)
class LabelSystem:
    """The numbers that one data set uses in its files.

    also_ncr: more numbers that are read as NCR (the cyst of children's tumours), never written; ignored: numbers that
    are read as background.
    """

    name: str
    ncr: int
    ed: int
    et: int
    ignored: tuple[int, ...] = ()
    also_ncr: tuple[int, ...] = ()

    @property
    def numbers(self) -> frozenset[int]:
        """Every number that a label file of this system may hold, background included."""
        return frozenset({0, self.ncr, self.ed, self.et, *self.ignored, *self.also_ncr})

    def __str__(self) -> str:
        ncr = " and ".join(map(str, (self.ncr, *self.also_ncr)))
        ignored = f"; {', '.join(map(str, self.ignored))} is read as background" if self.ignored else ""
        return f"NCR {ncr}, ED {self.ed}, ET {self.et}{ignored}"

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; `also_ncr` only where there is any, so that keys of older caches still fit."""
        content = asdict(self)
        return content if self.also_ncr else {key: content[key] for key in content if key != "also_ncr"}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelSystem:
        """What `to_json` gave. Raises KeyError or TypeError for anything else."""
        lists = {key: tuple(content[key]) for key in ("ignored", "also_ncr") if key in content}
        return cls(**{**content, **lists})


def whole_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as uint8 (same shape); numbers within 1e-3 of a whole one count as that one, as scaling leaves them.

    Raises:
        ValueError: a value is not a whole number between 0 and 255.
    """
    with np.errstate(invalid="ignore"):
        rounded = np.rint(labels) if labels.dtype.kind == "f" else labels
        whole = rounded.astype(np.uint8, copy=False)
        different = ~(np.abs(whole - labels) <= NEARLY) if labels.dtype.kind == "f" else whole != labels
    if different.any():
        shown = ", ".join(f"{float(v):.9g}" for v in np.unique(labels[different])[:5])
        raise ValueError(f"labels must be whole numbers between 0 and 255, found {shown}")
    return whole


def label_numbers(labels: np.ndarray) -> set[int]:
    """Return the distinct numbers of a label volume (any shape, any dtype).

    Raises:
        ValueError: as `whole_labels`.
    """
    return {int(v) for v in np.flatnonzero(np.bincount(whole_labels(labels).ravel()))}


def to_canonical(labels: np.ndarray, system: LabelSystem) -> np.ndarray:
    """Map the numbers in a file to the canonical labels 0, 1 = NCR, 2 = ED, 3 = ET (uint8, same shape).

    Raises:
        ValueError: the volume holds a number that `system` does not know; the message names the numbers.
    """
    whole = whole_labels(labels)
    unexpected = sorted(label_numbers(whole) - system.numbers)
    if unexpected:
        raise ValueError(
            f"unexpected labels {unexpected}; {system.name} has {sorted(system.numbers)} ({system})"
        )
    table = np.zeros(256, np.uint8)
    table[[system.ncr, system.ed, system.et]] = (NCR, ED, ET)
    table[list(system.also_ncr)] = NCR
    return table[whole]


def to_source(canonical: np.ndarray, system: LabelSystem) -> np.ndarray:
    """Map canonical labels to the numbers of `system` (uint8, same shape).

    Raises:
        ValueError: a value is not a canonical label.
    """
    unexpected = sorted(label_numbers(canonical) - {BACKGROUND, NCR, ED, ET})
    if unexpected:
        raise ValueError(f"unexpected labels {unexpected}; canonical labels are 0, 1, 2, 3")
    table = np.array([0, system.ncr, system.ed, system.et], np.uint8)
    return table[canonical.astype(np.uint8, copy=False)]


def regions_from_labels(canonical: np.ndarray) -> np.ndarray:
    """Return the regions of canonical labels [*S] as bool [3, *S] in the order of `REGIONS`.

    WT is every tumour label, TC is NCR and ET, ET is itself (BraTS evaluation regions).
    """
    return np.stack([canonical != BACKGROUND, (canonical == NCR) | (canonical == ET), canonical == ET])


def labels_from_regions(regions: np.ndarray) -> np.ndarray:
    """Merge region masks bool [3, *S] (order of `REGIONS`) into canonical labels uint8 [*S].

    The merge of a cascaded 3D U-Net in BrainLes 2021 ("Cascaded training pipeline", label merge table and the
    text on it): ET together with WT or TC gives ET, ET alone gives background, TC (with or without WT) gives
    NCR, WT alone gives ED. The printed table is not symmetric (TC with WT is printed once as oedema and once
    as necrosis); the text says necrosis and is followed here.

    Raises:
        ValueError: the first axis does not have one channel per region.
    """
    if regions.shape[:1] != (len(REGIONS),):
        raise ValueError(f"expected {len(REGIONS)} region channels {REGIONS}, got shape {regions.shape}")
    wt, tc, et = (regions[REGIONS.index(name)].astype(bool, copy=False) for name in ("WT", "TC", "ET"))
    labels = np.where(wt, ED, BACKGROUND).astype(np.uint8)
    labels[tc] = NCR
    labels[et] = BACKGROUND
    labels[et & (wt | tc)] = ET
    return labels

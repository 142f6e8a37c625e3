"""Label numbers and regions: the one place that knows how BraTS labels become WT, TC and ET and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REGIONS = ("WT", "TC", "ET")  # order of the region channels everywhere
BACKGROUND, NCR, ED, ET = 0, 1, 2, 3  # canonical labels in memory


@dataclass(frozen=True)
class LabelSystem:
    """The numbers that one data set uses in its files; `ignored` numbers are read as background."""

    name: str
    ncr: int
    ed: int
    et: int
    ignored: tuple[int, ...] = ()

    @property
    def numbers(self) -> frozenset[int]:
        """Every number that a label file of this system may hold, background included."""
        return frozenset({0, self.ncr, self.ed, self.et, *self.ignored})


BRATS_2017 = LabelSystem("brats2017-2021", ncr=1, ed=2, et=4)
BRATS_2023 = LabelSystem("brats2023", ncr=1, ed=2, et=3)
BRATS_2024 = LabelSystem("brats2024", ncr=1, ed=2, et=3, ignored=(4,))  # 4 = resection cavity
MSD = LabelSystem("msd", ncr=2, ed=1, et=3)


def label_numbers(labels: np.ndarray) -> set[int]:
    """Return the distinct numbers of a label volume (any shape, any dtype).

    Raises:
        ValueError: a value is not a whole number between 0 and 255.
    """
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.uint8, copy=False)
    different = whole != labels
    if different.any():
        shown = ", ".join(f"{float(v):g}" for v in np.unique(labels[different])[:5])
        raise ValueError(f"labels must be whole numbers between 0 and 255, found {shown}")
    return {int(v) for v in np.flatnonzero(np.bincount(whole.ravel()))}


def to_canonical(labels: np.ndarray, system: LabelSystem) -> np.ndarray:
    """Map the numbers in a file to the canonical labels 0, 1 = NCR, 2 = ED, 3 = ET (uint8, same shape).

    Raises:
        ValueError: the volume holds a number that `system` does not know; the message names the numbers.
    """
    unexpected = sorted(label_numbers(labels) - system.numbers)
    if unexpected:
        raise ValueError(
            f"unexpected labels {unexpected}; {system.name} has {sorted(system.numbers)} "
            f"(NCR {system.ncr}, ED {system.ed}, ET {system.et})"
        )
    table = np.zeros(256, np.uint8)
    table[[system.ncr, system.ed, system.et]] = (NCR, ED, ET)
    return table[labels.astype(np.uint8, copy=False)]


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
